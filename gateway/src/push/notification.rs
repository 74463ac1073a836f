//! What the data-notifications of DLMS meters say: values with their codes, who the meter is, what its clock shows.
//!
//! | a push that | is read by |
//! | --- | --- |
//! | names each value by its code, with scaler and unit or without | these |
//! | begins with the list of its objects, and goes on with their values (Landis+Gyr) | the list |
//! | gives each value an attribute descriptor (EG.D) | these |
//! | begins with `KFM_001`, and names nothing (Kaifa in Norway) | the places of that list; of its meters a number alone is the power |
//!
//! What is no number is a text. A number without a unit counts what the settings say, or is kept bare.

use protocols::cosem::register::ScalerUnit;
use protocols::dlms::data::{Data, Sequence};
use protocols::dlms::datetime::{ClockReading, ClockRules};
use protocols::dlms::notification::{DataNotification, NotificationBody};
use protocols::dlms::value::DataValue;
use protocols::metering::{
    Code, Kind, MeterId, ObisCode, Quality, Quantity, StampedBy, TelegramReading, Unit, UtcMillis,
};

/// A value, and scaler and unit of a register and its relatives.
const VALUE: i8 = 2;
/// Codes under which meters name themselves, the best first.
const IDENTITIES: [ObisCode; 5] = [
    ObisCode::new(0, 0, 42, 0, 0, 255),
    ObisCode::new(0, 0, 96, 1, 0, 255),
    ObisCode::new(1, 1, 0, 0, 5, 255),
    ObisCode::new(0, 0, 96, 1, 1, 255),
    ObisCode::new(1, 1, 0, 0, 1, 255),
];
const KAIFA_LIST: &[u8] = b"KFM_001";

/// How notifications of a port are read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    pub(crate) clock: ClockRules,
    /// What one of a number without a unit of its own counts.
    pub(crate) scaling: Vec<(Code, Quantity)>,
    /// A number alone is the power that is drawn: the meter has pushed lists of Kaifa's.
    pub(crate) numbers_are_power: bool,
}

/// What a notification says.
pub(crate) struct Said {
    pub(crate) meter: Option<MeterId>,
    /// What the meter's clock shows, as far as it says so.
    pub(crate) clock: Option<UtcMillis>,
    pub(crate) readings: Vec<TelegramReading>,
    /// What is no number: code, octets, and how they read.
    pub(crate) texts: Vec<(Code, Vec<u8>, String)>,
    pub(crate) is_list_of_kaifa: bool,
}

/// A value with its code.
#[derive(Clone, Copy)]
struct Value<'a> {
    code: ObisCode,
    attribute: u8,
    data: Data<'a>,
    scaler_unit: Option<ScalerUnit>,
}

/// Everything in a notification that arrived at `received_at`, marked with `quality`.
pub(crate) fn read(
    notification: &DataNotification<'_>,
    rules: &Rules,
    received_at: UtcMillis,
    quality: Quality,
) -> Said {
    let Gathered { values, name, is_list_of_kaifa } = gathered(&notification.body, rules.numbers_are_power);
    let of_clock = values.iter().filter(|value| is_clock(value.code)).find_map(|value| value.data.date_time());
    let shown = of_clock.or(notification.date_time).and_then(|stamp| stamp.to_utc(rules.clock).ok());
    let named =
        IDENTITIES.iter().find_map(|code| values.iter().find(|value| value.code == *code && value.attribute == 2));
    let meter = named.and_then(|value| identity(&value.data)).or_else(|| MeterId::from_device(name?));
    let clock = shown.map(|shown| shown.utc);
    let mut said = Said { meter, clock, readings: Vec::new(), texts: Vec::new(), is_list_of_kaifa };
    let (captured_at, stamped_by) =
        shown.map_or((received_at, StampedBy::Gateway), |shown| (shown.utc, StampedBy::Meter));
    let quality = quality.with(shown.map_or(Quality::GOOD, |shown: ClockReading| shown.status.quality()));
    for value in values.iter().filter(|value| !is_clock(value.code) && !IDENTITIES.contains(&value.code)) {
        let code = Code::Obis { obis: value.code, attribute: value.attribute };
        match rules.quantity(&code, value) {
            Some(quantity) => {
                let reading = TelegramReading::new(code, kind(value.code), captured_at, quantity);
                said.readings.push(TelegramReading { quality, stamped_by, ..reading });
            }
            None => said.texts.extend(text(&value.data).map(|(raw, text)| (code, raw, text))),
        }
    }
    said
}

impl Rules {
    fn quantity(&self, code: &Code, value: &Value<'_>) -> Option<Quantity> {
        let quantity = value.scaler_unit.unwrap_or(ScalerUnit::COUNT).quantity(&value.data).ok()?;
        let scaling = self.scaling.iter().find(|(of, _)| of == code && value.scaler_unit.is_none());
        let Some((_, one)) = scaling else { return Some(quantity) };
        let mantissa = quantity.mantissa.checked_mul(one.mantissa)?;
        Some(Quantity::new(mantissa, quantity.scaler.checked_add(one.scaler)?, one.unit))
    }
}

/// Channels are handed out as makers like.
fn is_clock(ObisCode([a, _, c, d, e, _]): ObisCode) -> bool {
    (a, c, d, e) == (0, 1, 0, 0)
}

/// By value group D: a push says no period, so that means and the like are of the moment.
fn kind(ObisCode([a, _, _, d, ..]): ObisCode) -> Kind {
    match (a, d) {
        (1, 6) => Kind::Maximum,
        (1, 4 | 5 | 7 | 24 | 25 | 27..=29) => Kind::Instant,
        _ => Kind::Register,
    }
}

fn identity(data: &Data<'_>) -> Option<MeterId> {
    match data.octets() {
        Some(octets) => MeterId::from_device(octets),
        None => MeterId::new(&data.integer()?.to_string()).ok(),
    }
}

/// Containers and nothing say nothing by themselves.
fn text(data: &Data<'_>) -> Option<(Vec<u8>, String)> {
    match data.octets() {
        Some(octets) => Some((octets.to_vec(), String::from_utf8_lossy(octets).into_owned())),
        None if data.elements().is_some() || matches!(data, Data::Null) => None,
        None => Some((DataValue::from(*data).to_vec(), format!("{:?}", DataValue::from(*data)))),
    }
}

#[derive(Default)]
struct Gathered<'a> {
    values: Vec<Value<'a>>,
    /// A text at the end, to which no code belongs (Kaifa in Austria).
    name: Option<&'a [u8]>,
    is_list_of_kaifa: bool,
}

fn gathered<'a>(body: &NotificationBody<'a>, numbers_are_power: bool) -> Gathered<'a> {
    let mut gathered = Gathered::default();
    match body {
        NotificationBody::Described(described) => {
            for one in described.iter() {
                gathered.attribute(one.logical_name, one.attribute, one.value);
            }
        }
        NotificationBody::Data(data) => match data.elements().map(|elements| (elements, elements.at(0))) {
            Some((elements, Some(Data::Array(list)))) if gathered.by_list(list, elements) => {}
            Some((elements, Some(first))) if first.octets() == Some(KAIFA_LIST) => gathered.by_place(elements),
            Some((elements, Some(power))) if numbers_are_power && elements.len() == 1 && power.integer().is_some() => {
                let scaler_unit = Some(ScalerUnit::new(0, Unit::WATT));
                let code = ObisCode::new(1, 0, 1, 7, 0, 255);
                gathered.values.push(Value { code, attribute: VALUE.unsigned_abs(), data: power, scaler_unit });
            }
            Some((elements, _)) => {
                gathered.by_code(data);
                let last = elements.iter().last().filter(|last| last.obis().is_none());
                let is_text = |octets: &&[u8]| octets.iter().all(u8::is_ascii_graphic) && !octets.is_empty();
                let is_named = gathered.values.last().is_some_and(|value| Some(value.data) == last);
                gathered.name = last.filter(|_| !is_named).and_then(|last| last.octets()).filter(is_text);
            }
            None => {}
        },
    }
    gathered
}

impl<'a> Gathered<'a> {
    fn value(&mut self, code: ObisCode, data: Data<'a>) {
        self.values.push(Value { code, attribute: VALUE.unsigned_abs(), data, scaler_unit: None });
    }

    /// Scaler and unit go to the value of their object before them.
    fn attribute(&mut self, code: ObisCode, attribute: i8, data: Data<'a>) {
        let of_last = self.values.last_mut().filter(|last| last.code == code);
        match (of_last, ScalerUnit::decode(&data)) {
            (Some(last), Ok(scaler_unit)) if attribute > VALUE => last.scaler_unit = Some(scaler_unit),
            _ => self.values.push(Value { code, attribute: attribute.unsigned_abs(), data, scaler_unit: None }),
        }
    }

    /// A code, then its value, then scaler and unit where they are pushed: in a structure of their own, or one behind the other.
    fn by_code(&mut self, data: &Data<'a>) {
        let Some(elements) = data.elements() else { return };
        let mut code = None;
        for element in elements {
            match (code.take(), element) {
                (Some(code), data) if data.elements().is_none() => self.value(code, data),
                (_, Data::Structure(_)) if ScalerUnit::decode(&element).is_ok() => {
                    if let Some(last) = self.values.last_mut() {
                        last.scaler_unit = last.scaler_unit.or(ScalerUnit::decode(&element).ok());
                    }
                }
                (_, Data::Array(_) | Data::Structure(_) | Data::CompactArray(_)) => self.by_code(&element),
                (_, data) => code = data.obis(),
            }
        }
    }

    /// The list of a push setup (class 40, attribute 2: class, logical name, attribute, data index), and the values behind it. The list
    /// may name itself. False when it is none, or does not fit.
    fn by_list(&mut self, list: Sequence<'a>, elements: Sequence<'a>) -> bool {
        let described = |entry: Data<'a>| {
            let [class, name, attribute, _] = entry.structure()?.exactly()?;
            class.integer()?;
            Some((name.obis()?, i8::try_from(attribute.integer()?).ok()?))
        };
        let Some(objects) = list.iter().map(described).collect::<Option<Vec<_>>>() else { return false };
        let skipped = usize::from(elements.len() == objects.len() + 1);
        if objects.is_empty() || elements.len() != objects.len() + skipped {
            return false;
        }
        for ((code, attribute), data) in objects.into_iter().zip(elements.iter().skip(skipped)) {
            if !matches!(data, Data::Array(_)) {
                self.attribute(code, attribute, data);
            }
        }
        true
    }

    /// Lists of 9 to 18 of Kaifa's meters in Norway (NVE, list KFM_001): one phase or three, with the registers once an hour.
    fn by_place(&mut self, elements: Sequence<'a>) {
        const WATT: (i8, Unit) = (0, Unit::WATT);
        const MILLIAMPERE: (i8, Unit) = (-3, Unit::AMPERE);
        const DECIVOLT: (i8, Unit) = (-1, Unit::VOLT);
        let powers = [(1, WATT), (2, WATT), (3, (0, Unit::VAR)), (4, (0, Unit::VAR))];
        let phases: &[(u8, (i8, Unit))] = match elements.len() {
            9 | 14 => &[(31, MILLIAMPERE), (32, DECIVOLT)],
            13 | 18 => &[
                (31, MILLIAMPERE),
                (51, MILLIAMPERE),
                (71, MILLIAMPERE),
                (32, DECIVOLT),
                (52, DECIVOLT),
                (72, DECIVOLT),
            ],
            _ => return,
        };
        let registers = [(1, Unit::WATT_HOUR), (2, Unit::WATT_HOUR), (3, Unit::VAR_HOUR), (4, Unit::VAR_HOUR)];
        let momentary = powers
            .iter()
            .chain(phases)
            .map(|(c, (scaler, unit))| (ObisCode::new(1, 0, *c, 7, 0, 255), Some(ScalerUnit::new(*scaler, *unit))));
        let registers = registers.map(|(c, unit)| (ObisCode::new(1, 0, c, 8, 0, 255), Some(ScalerUnit::new(0, unit))));
        let clock = (ObisCode::new(0, 0, 1, 0, 0, 255), None);
        let places = std::iter::once((ObisCode::new(0, 0, 96, 1, 0, 255), None))
            .chain(std::iter::once((ObisCode::new(0, 0, 96, 1, 7, 255), None)))
            .chain(momentary)
            .chain(std::iter::once(clock))
            .chain(registers);
        self.is_list_of_kaifa = true;
        for ((code, scaler_unit), data) in places.zip(elements.iter().skip(1)) {
            self.values.push(Value { code, attribute: VALUE.unsigned_abs(), data, scaler_unit });
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
