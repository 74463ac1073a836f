//! `read --object-list`: what a meter has, as its association says it, and all of it that may be read.

use std::io::Write;

use protocols::cosem::InterfaceClass;
use protocols::cosem::association_ln::{AssociationLn, ListedObject, OBJECT_LIST, object_list};
use protocols::cosem::classes::ClassDescription;
use protocols::cosem::profile_generic::{BUFFER, ProfileGeneric};
use protocols::cosem::register::ScalerUnit;
use protocols::dlms::apdu::CosemAttribute;
use protocols::dlms::client::{ReadError, Value};
use protocols::dlms::data::Data;
use protocols::dlms::short_names::ASSOCIATION_CLASS_ID;
use protocols::metering::Unit;

use super::blue_book::{attribute_name, attributes, is_secret, obis_name};
use super::value;
use crate::reading::columns::{is_scaled, scaler_attribute};
use crate::reading::registers::decode_scaler;
use crate::reading::talk::{Talk, TalkError};

/// Attributes of one object that are believed in.
const ATTRIBUTES_MAX: usize = 64;

/// One attribute: what it says, or why it says nothing.
struct Said {
    attribute: i8,
    value: Result<Shown, String>,
}

enum Shown {
    /// With its scaler applied.
    Quantity {
        decimal: String,
        unit: Unit,
    },
    Encoded(Vec<u8>),
}

/// Prints each object when it is read. The outer error ends the conversation, as [`TalkError`] does; what was printed stands.
pub(super) async fn walk(
    talk: &mut Talk<'_>,
    json: bool,
    out: &mut impl Write,
) -> Result<anyhow::Result<()>, TalkError> {
    let list = CosemAttribute::new(AssociationLn::CLASS_ID, AssociationLn::CURRENT, OBJECT_LIST);
    let list = match talk.get(list, None).await? {
        Ok(list) => list,
        Err(error) => return Ok(Err(anyhow::anyhow!("object_list: {error}\nhint: another client may see it"))),
    };
    let objects = Data::from_bytes(&list.data).ok().and_then(|data| Some(object_list(&data).ok()?.collect::<Vec<_>>()));
    let Some(objects) = objects else { return Ok(Err(anyhow::anyhow!("the object_list is not as its class says"))) };
    let association = objects
        .iter()
        .flatten()
        .find(|object| (object.class_id, object.logical_name) == (AssociationLn::CLASS_ID, AssociationLn::CURRENT));
    let version = association.map_or(AssociationLn::VERSION, |object| object.version);
    for object in objects {
        let printed = match object {
            Ok(object) => {
                let said = read(talk, &object, version).await?;
                if json { print_json(&object, &said, out) } else { print_table(&object, &said, out) }
            }
            Err(error) if json => writeln!(out, "{}", serde_json::json!({ "refused": error.to_string() })),
            Err(error) => writeln!(out, "an object that is not as its class says: {error}"),
        };
        if let Err(error) = printed {
            return Ok(Err(error.into()));
        }
    }
    Ok(Ok(()))
}

/// The attributes of an object other than its name.
async fn read(talk: &mut Talk<'_>, object: &ListedObject, version: u8) -> Result<Vec<Said>, TalkError> {
    let ListedObject { class_id, logical_name, attributes: rights, .. } = object;
    // Where no rights are stated, what the class is known to have is tried.
    let stated = rights.iter().map(|access| (access.attribute, access.mode.can_read(version)));
    let known = attributes(*class_id, object.version).map(|attribute| (attribute, true));
    let all: Vec<(i8, bool)> = if rights.is_empty() { known.collect() } else { stated.collect() };
    let mut said = Vec::new();
    for (attribute, may_read) in all.into_iter().filter(|(attribute, _)| *attribute != 1).take(ATTRIBUTES_MAX) {
        let reason = match (*class_id, attribute) {
            (class_id, attribute) if is_secret(class_id, attribute) => Some("not asked: it is a secret"),
            (AssociationLn::CLASS_ID | ASSOCIATION_CLASS_ID, OBJECT_LIST) => Some("not asked: it is this list"),
            (ProfileGeneric::CLASS_ID, BUFFER) => Some("not asked: `read --profile` does"),
            _ if !may_read => Some("this client may not read it"),
            _ => None,
        };
        said.push((attribute, reason));
    }
    let wanted: Vec<i8> = said.iter().filter(|(_, reason)| reason.is_none()).map(|(attribute, _)| *attribute).collect();
    let list: Vec<_> =
        wanted.iter().map(|attribute| CosemAttribute::new(*class_id, *logical_name, *attribute)).collect();
    let mut results = talk.get_list(&list).await?;
    let scaler =
        scaler_attribute(*class_id).and_then(|scaler| wanted.iter().position(|attribute| *attribute == scaler));
    let scaler = scaler.and_then(|place| decode_scaler(results.get(place)?.as_ref().ok()?));
    let mut results = results.drain(..);
    let shown = |(attribute, reason): (i8, Option<&str>)| {
        let value = match reason {
            Some(reason) => Err(reason.to_owned()),
            None => shown(*class_id, attribute, scaler, results.next()),
        };
        Said { attribute, value }
    };
    Ok(said.into_iter().map(shown).collect())
}

fn shown(
    class_id: u16,
    attribute: i8,
    scaler: Option<ScalerUnit>,
    result: Option<Result<Value, ReadError>>,
) -> Result<Shown, String> {
    let value = result.ok_or("no answer")?.map_err(|error| error.to_string())?;
    let data = Data::from_bytes(&value.data).map_err(|error| error.to_string())?;
    let scaled = scaler.filter(|_| is_scaled(class_id, attribute));
    if let Some(quantity) = scaled.and_then(|scaler| scaler.quantity(&data).ok()) {
        return Ok(Shown::Quantity { decimal: quantity.decimal(), unit: quantity.unit });
    }
    if scaler_attribute(class_id) == Some(attribute)
        && let Ok(ScalerUnit { scaler, unit }) = ScalerUnit::decode(&data)
    {
        return Ok(Shown::Quantity { decimal: format!("10^{scaler}"), unit });
    }
    Ok(Shown::Encoded(value.data))
}

fn print_table(object: &ListedObject, said: &[Said], out: &mut impl Write) -> std::io::Result<()> {
    let ListedObject { class_id, version, logical_name, .. } = object;
    let class = ClassDescription::name_of(*class_id).unwrap_or("unknown class");
    let name = obis_name(*logical_name).map_or_else(String::new, |name| format!(": {name}"));
    writeln!(out, "{:<22} {class} ({class_id} v{version}){name}", logical_name.to_string())?;
    for Said { attribute, value } in said {
        let name = attribute_name(*class_id, *version, *attribute).unwrap_or("");
        let text = match value {
            Ok(Shown::Quantity { decimal, unit }) => format!("{decimal} {unit}"),
            Ok(Shown::Encoded(octets)) => {
                Data::from_bytes(octets).map_or_else(|_| String::new(), |data| value::text(&data))
            }
            Err(reason) => format!("({reason})"),
        };
        writeln!(out, "{attribute:>4} {name:<30} {text}")?;
    }
    Ok(())
}

fn print_json(object: &ListedObject, said: &[Said], out: &mut impl Write) -> std::io::Result<()> {
    let ListedObject { class_id, version, logical_name, .. } = object;
    let attribute = |Said { attribute, value }: &Said| {
        let mut line =
            serde_json::json!({ "attribute": attribute, "name": attribute_name(*class_id, *version, *attribute) });
        match value {
            Ok(Shown::Quantity { decimal, unit }) => {
                (line["value"], line["unit"]) = (decimal.as_str().into(), unit.to_string().into());
            }
            Ok(Shown::Encoded(octets)) => {
                line["value"] = Data::from_bytes(octets).map_or(serde_json::Value::Null, |data| value::json(&data));
            }
            Err(reason) => line["refused"] = reason.as_str().into(),
        }
        line
    };
    let line = serde_json::json!({
        "class": class_id, "class_name": ClassDescription::name_of(*class_id), "version": version, "code": logical_name.to_string(),
        "name": obis_name(*logical_name), "attributes": said.iter().map(attribute).collect::<Vec<_>>(),
    });
    writeln!(out, "{line}")
}
