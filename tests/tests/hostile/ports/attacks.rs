//! What is played on ports, and what of it the gateway has to count.

use std::sync::atomic::{AtomicU64, Ordering};

use protocols::dlms::notification::encode_data_notification;
use protocols::dlms::security::{Key, Keys, Level, SecurityControl, SecuritySuite, SystemTitle, protect_push};
use protocols::dlms::value::DataValue;
use protocols::hdlc::control::Control;
use protocols::hdlc::frame::Frame;
use protocols::iec62056_21::{Identification, encode_checked_push};
use protocols::mbus;
use protocols::metering::{ObisCode, Quantity, Unit};
use protocols::p1::{AUTHENTICATION_KEY, Builder, Layout, LocalTime};
use protocols::sml::{self, CrcAlgorithm, SmlTime, encode_file};
use serde_json::Value;

use super::framing::{Framing, address};

/// Far more than a gateway may keep of it.
const FLOOD_OCTETS: usize = 32 * 1024 * 1024;
const PIECE_OCTETS: usize = 64 * 1024;
/// An array of so many elements: the tag, a length of four octets.
const ARRAY_OF_4G: [u8; 6] = [0x01, 0x84, 0xff, 0xff, 0xff, 0xff];
/// Far deeper than any list; it fits sixteen segments of M-Bus.
const DEPTH: usize = 1_800;
const ENERGY: ObisCode = ObisCode::new(1, 0, 1, 8, 0, 255);
const HOSTILE: &[u8] = b"BAD000666";
const UI_SEGMENT_OCTETS: usize = 1_000;

/// What the gateway makes of something that is no good telegram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Octets between telegrams, which nobody counts.
    Noise,
    /// Refused for what it is.
    Refused,
    /// For its CRC or block check.
    Crc,
    /// For its tag, its keys, or being protected too little.
    Unverified,
    /// For its invocation counter.
    Replayed,
}

/// Something that is no good telegram.
pub(super) struct Bad {
    pub(super) octets: Vec<u8>,
    pub(super) times: usize,
    /// It leaves something begun.
    pub(super) is_unfinished: bool,
    pub(super) verdict: Verdict,
}

impl Bad {
    fn new(octets: impl Into<Vec<u8>>, verdict: Verdict) -> Self {
        Self { octets: octets.into(), times: 1, is_unfinished: false, verdict }
    }

    fn unfinished(octets: impl Into<Vec<u8>>, verdict: Verdict) -> Self {
        Self { is_unfinished: true, ..Self::new(octets, verdict) }
    }

    /// The same octets without end.
    fn flood(octets: &[u8]) -> Self {
        let piece = octets.repeat(PIECE_OCTETS / octets.len());
        Self { times: FLOOD_OCTETS / PIECE_OCTETS, ..Self::new(piece, Verdict::Noise) }
    }
}

/// How much was sent of what.
#[derive(Debug, Default)]
pub(super) struct Counts {
    refused: AtomicU64,
    crc: AtomicU64,
    unverified: AtomicU64,
    replayed: AtomicU64,
}

impl Counts {
    pub(super) fn add(&self, verdict: Verdict) {
        let of_kind = match verdict {
            Verdict::Noise => return,
            Verdict::Refused => None,
            Verdict::Crc => Some(&self.crc),
            Verdict::Unverified => Some(&self.unverified),
            Verdict::Replayed => Some(&self.replayed),
        };
        for count in of_kind.into_iter().chain([&self.refused]) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn by_metric(&self) -> [(&'static str, u64); 4] {
        [
            ("gateway_telegrams_refused_total", &self.refused),
            ("gateway_telegrams_crc_invalid_total", &self.crc),
            ("gateway_telegrams_unverified_total", &self.unverified),
            ("gateway_telegrams_replayed_total", &self.replayed),
        ]
        .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}

/// Whoever sits before a port. Some have the meter's keys.
pub(super) struct Attacker {
    pub(super) framing: Framing,
    keys: Keys,
    title: SystemTitle,
}

impl Attacker {
    pub(super) fn new(framing: Framing, endpoint: &Value) -> Self {
        let key = |name: &str| endpoint[name].as_str().map(|digits| Key::from_hex(digits).unwrap());
        let encryption = key("encryption_key").unwrap_or_else(|| [0; 16].into());
        let authentication = key("authentication_key").unwrap_or_else(|| AUTHENTICATION_KEY.into());
        let title = endpoint["system_title"].as_str().map(|title| SystemTitle::from_hex(title).unwrap());
        Self { framing, keys: Keys::new(encryption, authentication), title: title.unwrap_or(SystemTitle([0; 8])) }
    }

    /// By whoever has the keys, as the meter with this title, under a counter that is below any of the meter.
    fn sealed_by(&self, title: SystemTitle, level: Level, counter: u32, plain: &[u8]) -> Vec<u8> {
        let control = SecurityControl { suite: SecuritySuite::Suite0, level, broadcast: false };
        protect_push(&self.keys, title, control, counter, plain).unwrap()
    }

    fn sealed(&self, counter: u32, plain: &[u8]) -> Vec<u8> {
        self.sealed_by(self.title, Level::AUTHENTICATED_ENCRYPTED, counter, plain)
    }

    /// What is in a sealed telegram that the attacker made up.
    fn made_up(&self) -> Vec<u8> {
        if self.framing == Framing::P1 { p1_telegram() } else { notification() }
    }

    /// Comes again and again while nothing good does.
    pub(super) fn refused(&self) -> Bad {
        match self.framing {
            Framing::Sml | Framing::D0 => Bad::new(self.framing.spoiled(&self.clear()), Verdict::Crc),
            Framing::Hdlc | Framing::Mbus | Framing::P1 => {
                let forged = forged(&self.sealed(1_000, &self.made_up()));
                Bad::new(self.framing.framed(&forged), Verdict::Unverified)
            }
        }
    }

    /// A telegram of the attacker's own, in clear.
    fn clear(&self) -> Vec<u8> {
        match self.framing {
            Framing::Sml => {
                let quantity = Quantity::new(666_000, 0, Unit::WATT_HOUR);
                let value = sml::Value::Integer { value: quantity.mantissa, width: 8 };
                let entry = sml::Entry { unit: Some(quantity.unit), ..sml::Entry::new(ENERGY, value) };
                sml::Builder::new(&SERVER_ID).sensor_time(SmlTime::Timestamp(1_795_392_000)).entry(&entry).finish()
            }
            Framing::D0 => {
                let mut octets = Vec::new();
                let (manufacturer, model) = ("BAD".to_owned(), "HOSTILE".to_owned());
                let identification = Identification { manufacturer, baud: b'5', enhanced: Vec::new(), model };
                encode_checked_push(&mut octets, &identification, b"0.0.0(000666)\r\n1.8.0(000666.000*kWh)\r\n");
                octets
            }
            Framing::Hdlc | Framing::Mbus | Framing::P1 => self.framing.framed(&self.made_up()),
        }
    }

    /// Before a telegram of the real meter.
    pub(super) fn before(&self, telegram: &[u8]) -> Vec<Bad> {
        let spoiled = || self.framing.spoiled(telegram);
        match self.framing {
            Framing::Sml | Framing::D0 => vec![Bad::new(spoiled(), Verdict::Crc)],
            Framing::Hdlc | Framing::Mbus => {
                let forged = forged(&self.framing.apdu(telegram));
                vec![
                    Bad::new(spoiled(), Verdict::Refused),
                    Bad::new(self.framing.framed(&forged), Verdict::Unverified),
                    Bad::new(self.clear(), Verdict::Unverified),
                ]
            }
            // What is not sealed is no block at all.
            Framing::P1 => vec![Bad::new(spoiled(), Verdict::Unverified), Bad::new(self.clear(), Verdict::Noise)],
        }
    }

    /// Behind it; the first one was recorded.
    pub(super) fn after(&self, recorded: &[u8]) -> Vec<Bad> {
        if self.framing.is_sealed() {
            vec![Bad::new(recorded, Verdict::Replayed)]
        } else {
            vec![Bad::new([0x55_u8; 500], Verdict::Noise)]
        }
    }

    /// All kinds of it, one after the other.
    pub(super) fn nonsense(&self) -> Vec<Bad> {
        let mut all = match self.framing {
            Framing::Sml => sml_nonsense(),
            Framing::D0 => d0_nonsense(),
            Framing::Hdlc => hdlc_nonsense(),
            Framing::Mbus => mbus_nonsense(),
            Framing::P1 => p1_nonsense(self.title),
        };
        if self.framing.is_sealed() {
            all.extend(self.sealed_nonsense());
        }
        all.insert(0, Bad::flood(&[0x55]));
        all
    }

    /// What is wrong inside the frames.
    fn sealed_nonsense(&self) -> Vec<Bad> {
        let header = [&[0xdb, 0x08][..], &self.title.0].concat();
        let rest = [0x30, 0, 0, 0, 1, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a];
        // A block of P1 is found by these; in frames they are what is refused.
        let is_block = self.framing == Framing::P1;
        let of_length = if is_block { Verdict::Noise } else { Verdict::Refused };
        let lengths = [&[0x84, 0xff, 0xff, 0xff, 0xff][..], &[0x82, 0xff, 0xff], &[0x80]];
        let lying =
            lengths.map(|length| Bad::new(self.framing.framed(&[&header[..], length, &rest].concat()), of_length));
        // Right tags round what is no notification.
        let data = |data: &[u8]| [&[0x0f, 0, 0, 0, 1, 0][..], data].concat();
        let inside = [
            data(&[&ARRAY_OF_4G[..], &[0x11, 0x01]].concat()),
            data(&[[0x02, 0x01].repeat(DEPTH), vec![0x11, 0x01]].concat()),
            data(&[0x09, 0x84, 0xff, 0xff, 0xff, 0xff]),
            // A compact array of nothing, of more than 4 billion.
            data(&[0x13, 0x00, 0x84, 0xff, 0xff, 0xff, 0xff]),
            data(&[]),
        ];
        let inside = (1..).zip(inside).map(|(counter, plain)| (self.sealed(counter, &plain), Verdict::Refused));
        let other = SystemTitle(self.title.0.map(|octet| octet ^ 1));
        let (made_up, all) = (self.made_up(), Level::AUTHENTICATED_ENCRYPTED);
        let protected_little = [
            (self.sealed_by(self.title, Level::AUTHENTICATED, 100, &made_up), Verdict::Unverified),
            (self.sealed_by(self.title, Level::ENCRYPTED, 101, &made_up), Verdict::Unverified),
            (self.sealed_by(other, all, 102, &made_up), Verdict::Unverified),
        ];
        let clear = if is_block { Verdict::Noise } else { Verdict::Unverified };
        let sealed =
            inside.chain(protected_little).map(|(apdu, verdict)| Bad::new(self.framing.framed(&apdu), verdict));
        lying.into_iter().chain(sealed).chain([Bad::unfinished(self.clear(), clear)]).collect()
    }
}

/// With another tag.
fn forged(apdu: &[u8]) -> Vec<u8> {
    let mut forged = apdu.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    forged
}

/// A data-notification of a meter that is not there.
fn notification() -> Vec<u8> {
    let code = |ObisCode(octets): ObisCode| DataValue::OctetString(octets.to_vec());
    let name = DataValue::OctetString(HOSTILE.to_vec());
    let body = DataValue::Structure(vec![
        DataValue::Structure(vec![code(ObisCode::new(0, 0, 96, 1, 0, 255)), name]),
        DataValue::Structure(vec![code(ENERGY), DataValue::DoubleLongUnsigned(666_000)]),
    ]);
    let mut apdu = Vec::new();
    encode_data_notification(1, None, &body, &mut apdu);
    apdu
}

fn p1_telegram() -> Vec<u8> {
    Builder::new("BAD5HOSTILE", LocalTime::CET)
        .text("1-3:0.2.8", "50")
        .hex("0-0:96.1.1", "BAD0666")
        .quantity("1-0:1.8.1", Quantity::new(666_000, 0, Unit::WATT_HOUR), Layout::ENERGY)
        .unwrap()
        .finish()
}

const SML_START: [u8; 8] = [0x1b, 0x1b, 0x1b, 0x1b, 0x01, 0x01, 0x01, 0x01];
/// By DIN 43863-5, of a maker that does not exist.
const SERVER_ID: [u8; 10] = [0x0a, 0x01, b'B', b'A', b'D', 0x00, 0x00, 0x00, 0x02, 0x9a];

fn sml_nonsense() -> Vec<Bad> {
    // Transaction 1, group 0, abort on error 0, GetList.Res with seven elements: client and server, no name, no time, and the list.
    let list = |values: &[u8]| {
        let before = [0x76, 0x02, 0x01, 0x62, 0x00, 0x62, 0x00, 0x72, 0x63, 0x07, 0x01, 0x77, 0x01, 0x0b];
        encode_file(&[&before[..], &SERVER_ID, &[0x01, 0x01], values].concat(), CrcAlgorithm::X25)
    };
    let mut fill = list(&[0x71, 0x01]);
    let at = fill.len() - 3;
    fill[at] = 0xff;
    let refused = [
        // 2^32 elements, and as many as can be said.
        list(&[0xff, 0x8f, 0x8f, 0x8f, 0x8f, 0x8f, 0x8f, 0x0f]),
        list(&[0xff, 0x8f, 0x8f, 0x0f, 0x01]),
        list(&[0x71; 4_000]),
        // An octet string of 65,535.
        list(&[0x8f, 0x8f, 0x8f, 0x0f, 0x01]),
        fill,
    ];
    let endless = [&SML_START[..], &vec![0x00; 4 * PIECE_OCTETS]].concat();
    let flood_of_starts = Bad { times: 16, ..Bad::new(SML_START.repeat(PIECE_OCTETS / 8), Verdict::Refused) };
    let escapes = Bad { times: 64, ..Bad::new(vec![0x1b; PIECE_OCTETS], Verdict::Noise) };
    let refused = refused.into_iter().map(|octets| Bad::new(octets, Verdict::Refused));
    [Bad::new(endless, Verdict::Refused), flood_of_starts, escapes].into_iter().chain(refused).collect()
}

fn d0_nonsense() -> Vec<Bad> {
    let lines = b"1.8.0(000666.000*kWh)\r\n".repeat(PIECE_OCTETS / 23);
    vec![
        Bad::new([&b"/BAD5"[..], &vec![b'A'; PIECE_OCTETS]].concat(), Verdict::Refused),
        Bad::new([b'/'; PIECE_OCTETS / 8], Verdict::Refused),
        Bad::new([&b"/BAD5HOSTILE\r\n\r\n"[..], &lines].concat(), Verdict::Refused),
        Bad { times: 64, ..Bad::new(lines, Verdict::Noise) },
        // Cut by the next one.
        Bad::new(&b"/BAD5HOSTILE\r\n\x021.8.0(000666.000*kWh)\r\n/BAD5HOSTILE\r\n\x02"[..], Verdict::Refused),
        Bad::new(b"1.8.0((((((((((((((((((((((((((((((((((((((((\r\n!\r\n\x03\x00\r\n".to_vec(), Verdict::Noise),
    ]
}

fn hdlc_nonsense() -> Vec<Bad> {
    let frame = |segmented: bool, information: &[u8]| {
        let control = Control::Ui.encode(!segmented);
        let mut out = Vec::new();
        let (destination, source) = (address(16), address(1));
        Frame { segmented, destination, source, control, information }.encode(&mut out);
        out
    };
    let mut header = frame(false, &[0x0f; 100]);
    // Format, two octets of length, two addresses, control.
    header[6] ^= 1;
    let mut check = frame(false, &[0x0f; 100]);
    let at = check.len() - 2;
    check[at] ^= 1;
    let mut longer = frame(false, &[0x0f; 100]);
    longer[1] |= 0x07;
    // The LLC octets, and a push that always goes on in the next frame.
    let begins = frame(true, &[&[0xe6, 0xe7, 0x00, 0x0f], &[0; UI_SEGMENT_OCTETS][..]].concat());
    let endless = [begins.clone(), frame(true, &[0; UI_SEGMENT_OCTETS]).repeat(200)].concat();
    vec![
        Bad::flood(&[0x7e]),
        Bad::new(header, Verdict::Refused),
        Bad::new(check, Verdict::Refused),
        Bad::unfinished(longer, Verdict::Noise),
        Bad::new(endless, Verdict::Refused),
        // Each gives way to the next.
        Bad::unfinished(begins.repeat(200), Verdict::Refused),
    ]
}

fn mbus_nonsense() -> Vec<Bad> {
    let segment = |ci: u8| {
        let mut out = Vec::new();
        let data = [&[0x01, 0x67][..], &[0x0f; 200]].concat();
        let frame = mbus::Frame::Long { control: mbus::control::SND_UD, address: mbus::BROADCAST, ci, data: &data };
        frame.encode(&mut out).unwrap();
        out
    };
    let mut lengths = segment(0);
    lengths[2] ^= 1;
    let mut checksum = segment(0x10);
    let at = checksum.len() - 2;
    checksum[at] ^= 1;
    // Sixteen segments of which none is the last, and one that follows nothing.
    let endless: Vec<u8> = (0..16).flat_map(segment).collect();
    vec![
        Bad { times: 8, ..Bad::unfinished(vec![0x68; PIECE_OCTETS], Verdict::Refused) },
        Bad::new(lengths, Verdict::Refused),
        Bad::new(checksum, Verdict::Refused),
        Bad::new(endless, Verdict::Refused),
        Bad::new(segment(0x15), Verdict::Refused),
        // A length of which a part comes only.
        Bad::unfinished([0x68_u8, 0xff, 0xff, 0x68, 0x53, 0xff, 0x10], Verdict::Noise),
    ]
}

fn p1_nonsense(title: SystemTitle) -> Vec<Bad> {
    let start = [&[0xdb, 0x08][..], &title.0].concat();
    // Blocks within blocks: each claims nearly 8 KiB, sealed as it should be.
    let nested = [&start[..], &[0x82, 0x1f, 0x00, 0x30, 0x00, 0x00]].concat().repeat(2_000);
    vec![
        Bad::unfinished(nested, Verdict::Unverified),
        Bad::unfinished([&start[..], &[0x82, 0x1f, 0x00, 0x30]].concat(), Verdict::Noise),
        Bad::new(p1_telegram().repeat(20), Verdict::Noise),
        Bad { times: 16, ..Bad::unfinished(vec![0xdb; PIECE_OCTETS], Verdict::Noise) },
    ]
}
