//! Log books: `P.98(stamp)(status)()(0)`, one entry a line, with values behind it where it has any.

use super::address::Address;
use super::context::hexadecimal;
use super::line::{DataSets, LineError, LineProblem, printable};
use super::quirks::Settings;
use super::session::DataBlock;
use super::stamp::Stamp;
use crate::metering::{Event, MeterId, UtcMillis};

/// What a read of a log book gave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogBook {
    /// In the order of the meter; `code` is the status of the entry.
    pub events: Vec<Event>,
    pub problems: Vec<LineProblem>,
}

impl LogBook {
    /// Reads the answer to a `P.98` or another log book of `meter`.
    pub fn decode(block: &DataBlock, meter: &MeterId, settings: &Settings, received_at: UtcMillis) -> Self {
        let mut book = Self::default();
        let mut order = Order::default();
        for set in DataSets::new(&block.content) {
            let set = match set {
                Ok(set) => set,
                Err(problem) => {
                    book.problems.push(problem);
                    continue;
                }
            };
            let Address::Obis(address) = Address::parse(set.address) else { continue };
            if address.cde.0 != 99 {
                continue;
            }
            let groups: Vec<_> = set.groups().collect();
            match entry(&groups, settings, received_at) {
                Ok((at, code, text)) => {
                    let nth = order.nth(at);
                    let log = address.obis(settings.medium).to_string();
                    let raw = set.raw().to_vec();
                    book.events.push(Event { meter: meter.clone(), log, at, nth, code, raw, text });
                }
                Err(error) => book.problems.push(set.problem(error)),
            }
        }
        book
    }
}

/// Counts entries with the same stamp.
#[derive(Default)]
pub(super) struct Order(Option<(UtcMillis, u8)>);

impl Order {
    pub(super) fn nth(&mut self, at: UtcMillis) -> u8 {
        let nth = self.0.filter(|&(same, _)| same == at).map_or(0, |(_, nth)| nth.saturating_add(1));
        self.0 = Some((at, nth));
        nth
    }
}

/// Stamp, status, and the values with their codes.
pub(super) fn entry(
    groups: &[&[u8]],
    settings: &Settings,
    received_at: UtcMillis,
) -> Result<(UtcMillis, i64, String), LineError> {
    let count = groups.len();
    let [stamp, status, _, values, rest @ ..] = groups else { return Err(LineError::Count { count }) };
    let Some(Stamp::At(at)) = settings.clock.resolve(stamp, received_at) else {
        return Err(LineError::Stamp { text: printable(stamp) });
    };
    let code = hexadecimal(status).and_then(|bits| i64::try_from(bits).ok());
    let code = code.ok_or_else(|| LineError::Status { text: printable(status) })?;
    let values = std::str::from_utf8(values).ok().and_then(|values| values.parse::<usize>().ok());
    let values = values.filter(|&values| rest.len() == values.saturating_mul(3)).ok_or(LineError::Count { count })?;
    let (definitions, contents) = rest.split_at_checked(2 * values).unwrap_or((rest, &[]));
    let named = definitions.chunks(2).zip(contents).map(|(definition, content)| {
        let name = definition.first().copied().unwrap_or_default();
        format!("{}={}", printable(name), printable(content))
    });
    let text: Vec<_> = named.collect();
    Ok((at.instant, code, text.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metering::Quality;

    fn decode(content: &str) -> (Vec<String>, Vec<String>) {
        let block = DataBlock { identification: None, content: content.into(), quality: Quality::GOOD };
        let meter = MeterId::new("EMH:1").unwrap();
        let book = LogBook::decode(&block, &meter, &Settings::default(), "2026-11-23T00:00:00Z".parse().unwrap());
        let shown =
            |event: &Event| format!("{} {}#{} {:#x} {:?}", event.log, event.at, event.nth, event.code, event.text);
        (book.events.iter().map(shown).collect(), book.problems.iter().map(ToString::to_string).collect())
    }

    /// Entries of public tests: Runamook/iec_62056-21 `test_parser.py` (EMH and MetCom).
    #[test]
    fn entries_of_two_makers_are_read() {
        let emh = "0.0.0(23456321)\r\nP.98(1041007095703)(00002000)()(0)\r\nP.98(1041007095703)(00004000)()(0)\r\n\
            P.98(1220826235646)(00008020)()(2)(0.9.1)()(0.9.2)()(1235703)(1220826)\r\n";
        let metcom = "P.98(1220919161837)(00)()(2)(0-0:C.11.0)()(0-0:C.11.10)()(17)(1)\r\n";
        let expected = [
            "1-0:99.98.0 2004-10-07T07:57:03Z#0 0x2000 \"\"",
            "1-0:99.98.0 2004-10-07T07:57:03Z#1 0x4000 \"\"",
            "1-0:99.98.0 2022-08-26T21:56:46Z#0 0x8020 \"0.9.1=1235703 0.9.2=1220826\"",
        ];
        assert_eq!(decode(emh), (expected.map(str::to_owned).to_vec(), vec![]));
        let expected = "1-0:99.98.0 2022-09-19T14:18:37Z#0 0x0 \"0-0:C.11.0=17 0-0:C.11.10=1\"";
        assert_eq!(decode(metcom), (vec![expected.to_owned()], vec![]));
    }

    #[test]
    fn a_broken_entry_costs_itself_only() {
        let (events, problems) = decode(
            "P.98(x)(00)()(0)\r\nP.98(1041007095703)(xyz)()(0)\r\nP.98(1041007095703)(00)()(1)(0.9.1)()\r\nP.98(1\r\n\
             P.98(1041007095703)(00000080)()(0)\r\n",
        );
        assert_eq!(events, ["1-0:99.98.0 2004-10-07T07:57:03Z#0 0x80 \"\""]);
        assert_eq!(problems.len(), 4, "{problems:?}");
    }
}
