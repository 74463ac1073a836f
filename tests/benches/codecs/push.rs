//! Pushes of DLMS beside `dlms-cosem-rs`: a DataNotification decoded, and its body walked to the last value.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use dlms_cosem_rs::axdr::Data as TheirData;
use dlms_cosem_rs::codec::Decode as _;
use dlms_cosem_rs::xdlms::Apdu;
use protocols::dlms::data::Data;
use protocols::dlms::notification::{NotificationBody, decode_data_notification, encode_data_notification};
use protocols::dlms::value::DataValue;
use protocols::hdlc::{PushListener, UiReassembler};
use tests::measure::note;

use crate::beside::{Limit, Work};
use crate::captured::{self, logged};

const TIMES: usize = 20_000;

/// Of those that are plain and in a form that both know: bare, and in HDLC frames.
const BARE: &[&str] = &["raw_salzburg_netz"];
const FRAMED: &[&str] = &["hdlc_iskra550", "hdlc_norway_han_1phase"];

/// Values read, and what their numbers and lengths add up to.
type Read = (usize, i64);

/// Recorded ones; without them, what a three-phase meter with three-part objects pushes.
fn pushes() -> Result<(Vec<Vec<u8>>, &'static str)> {
    let mut pushes = Vec::new();
    for name in BARE {
        pushes.extend(captured::file("dlms_push", &format!("{name}.log"))?.map(|log| logged(&log)));
    }
    for name in FRAMED {
        let Some(log) = captured::file("dlms_push", &format!("{name}.log"))? else { continue };
        let reassembler = UiReassembler::new(4_096, Duration::from_secs(2));
        let mut listener = PushListener::new(reassembler, Duration::from_millis(400));
        pushes.extend(listener.receive(Duration::ZERO, &logged(&log)));
    }
    if pushes.is_empty() {
        return Ok((vec![built()], "made by our encoder"));
    }
    ensure!(pushes.len() == BARE.len() + FRAMED.len(), "{} pushes in the captures", pushes.len());
    Ok((pushes, "recorded"))
}

fn built() -> Vec<u8> {
    let objects = [
        ([1, 0, 32, 7, 0, 255], DataValue::LongUnsigned(2_292), -1, 35),
        ([1, 0, 52, 7, 0, 255], DataValue::LongUnsigned(2_316), -1, 35),
        ([1, 0, 72, 7, 0, 255], DataValue::LongUnsigned(2_314), -1, 35),
        ([1, 0, 31, 7, 0, 255], DataValue::LongUnsigned(165), -2, 33),
        ([1, 0, 51, 7, 0, 255], DataValue::LongUnsigned(173), -2, 33),
        ([1, 0, 71, 7, 0, 255], DataValue::LongUnsigned(37), -2, 33),
        ([1, 0, 1, 7, 0, 255], DataValue::DoubleLongUnsigned(714), 0, 27),
        ([1, 0, 2, 7, 0, 255], DataValue::DoubleLongUnsigned(0), 0, 27),
        ([1, 0, 1, 8, 0, 255], DataValue::DoubleLongUnsigned(1_328_150), 0, 30),
        ([1, 0, 2, 8, 0, 255], DataValue::DoubleLongUnsigned(0), 0, 30),
        ([1, 0, 3, 8, 0, 255], DataValue::DoubleLongUnsigned(4_818), 0, 32),
        ([1, 0, 4, 8, 0, 255], DataValue::DoubleLongUnsigned(376_418), 0, 32),
    ];
    let mut body = vec![
        DataValue::OctetString(vec![0, 0, 1, 0, 0, 255]),
        DataValue::OctetString(vec![7, 0xe6, 11, 12, 6, 16, 54, 0, 0, 0xff, 0xc4, 0]),
    ];
    body.extend(objects.map(|(obis, value, scaler, unit)| {
        let scaler_unit = DataValue::Structure(vec![DataValue::Integer(scaler), DataValue::Enum(unit)]);
        DataValue::Structure(vec![DataValue::OctetString(obis.to_vec()), value, scaler_unit])
    }));
    let mut push = Vec::new();
    encode_data_notification(0x0017_fa98, None, &DataValue::Structure(body), &mut push);
    push
}

fn ours(push: &[u8]) -> Result<Read> {
    let notification = decode_data_notification(push)?;
    let NotificationBody::Data(body) = &notification.body else { bail!("a body of another form") };
    let mut read = (0, notification.long_invoke_id_and_priority.into());
    our_walk(body, &mut read)?;
    Ok(read)
}

fn our_walk(data: &Data<'_>, read: &mut Read) -> Result<()> {
    if let Some(elements) = data.elements() {
        return elements.iter().try_for_each(|element| our_walk(&element, read));
    }
    let value = match *data {
        Data::OctetString(octets) | Data::VisibleString(octets) => octets.len() as i64,
        Data::Enum(value) => value.into(),
        other => match other.integer() {
            Some(value) => value,
            None => bail!("{other:?} in a push that has none"),
        },
    };
    *read = (read.0 + 1, read.1.wrapping_add(value));
    Ok(())
}

fn theirs(push: &[u8]) -> Result<Read> {
    let Apdu::DataNotification(notification) = Apdu::from_bytes(push)? else { bail!("no notification") };
    let mut read = (0, notification.long_invoke_id.0.into());
    their_walk(&notification.body, &mut read)?;
    Ok(read)
}

fn their_walk(data: &TheirData<'_>, read: &mut Read) -> Result<()> {
    if let Some(elements) = data.as_seq() {
        return elements.iter().try_for_each(|element| their_walk(&element?, read));
    }
    let value = match *data {
        TheirData::OctetString(octets) | TheirData::VisibleString(octets) => octets.len() as i64,
        other => match other.as_i64() {
            Some(value) => value,
            None => bail!("{other:?} in a push that has none"),
        },
    };
    *read = (read.0 + 1, read.1.wrapping_add(value));
    Ok(())
}

/// All of them: values, and what they add up to.
fn each(pushes: &[Vec<u8>], read: impl Fn(&[u8]) -> Result<Read>) -> Result<Read> {
    pushes.iter().try_fold((0, 0_i64), |(values, sum), push| {
        let read = read(black_box(push))?;
        Ok((values + read.0, sum.wrapping_add(read.1)))
    })
}

pub(crate) fn run() -> Result<()> {
    let (pushes, origin) = pushes()?;
    Work {
        name: "DLMS push, walked to its values",
        peer: "dlms-cosem-rs",
        piece: "push",
        pieces: pushes.len(),
        times: TIMES,
        limit: Limit::Time(0.8),
    }
    .measure(|| each(&pushes, ours), || each(&pushes, theirs))?;
    let (values, _) = each(&pushes, ours)?;
    Ok(note(&format!("DLMS push: {} {origin}, {values} values without containers.", pushes.len()))?)
}
