//! What is in a fleet: the protocol and the protection of each meter, drawn from the seed, at about the same cost for every life. A
//! meter is a section of a fleet file for the simulator, and sections of settings for the gateway.

use std::path::Path;

use anyhow::Context as _;
use demo::meters::key_file;
use firmware_sim::speak::LinePlace;
use firmware_sim::speak::security::SecurityPlace;

use super::meters::PERIOD_S;
use crate::random::Random;

/// Everything that may be in a fleet. Over some hundred seeds all of it was.
pub const KINDS: [&str; 34] = [
    "password",
    "hls 5",
    "hls 5, suite 2",
    "hls 6",
    "hls 7",
    "hls 3, nothing ciphered",
    "password, ciphered",
    "global",
    "dedicated",
    "general-global",
    "general-dedicated",
    "no counter object",
    "forged answers",
    "jumping counters",
    "hdlc",
    "iec 62056-21",
    "m-bus water",
    "m-bus heat",
    "m-bus electricity",
    "m-bus by primary address",
    "m-bus by secondary address",
    "m-bus, enciphered",
    "p1 with gas",
    "p1, ciphered",
    "sml",
    "d0",
    "dlms push in hdlc",
    "dlms push in m-bus",
    "dlms push in hdlc, ciphered",
    "dlms push in m-bus, ciphered",
    "cad",
    "short names",
    "dlms going to a listener",
    "dlms going to a listener, ciphered",
];

/// Kind, name in both settings, security suite; all but the last protect every APDU.
const PROTECTIONS: [(&str, &str, u8); 6] = [
    ("hls 5", "gmac", 0),
    ("hls 5, suite 2", "gmac", 2),
    ("hls 6", "sha256", 0),
    ("hls 7", "ecdsa", 1),
    ("password, ciphered", "low", 0),
    ("hls 3, nothing ciphered", "md5", 0),
];
const CIPHERINGS: [&str; 4] = ["global", "dedicated", "general-global", "general-dedicated"];
const BAUD: u32 = 9600;
const PUSH_EVERY_MS: u32 = 30_000;
/// The physical device on HDLC.
const PHYSICAL: u16 = 17;

/// How the client of a DLMS meter proves itself, and what is ciphered.
#[derive(Debug, Clone, Copy)]
struct Protection {
    kind: &'static str,
    authentication: &'static str,
    suite: u8,
    ciphering: Option<&'static str>,
    tells_counter: bool,
    is_forged: bool,
    jumps: bool,
}

#[derive(Debug, Clone, Copy)]
enum Protocol {
    Wrapper(Option<Protection>),
    /// With a password, over the wrapper, as older meters name their objects.
    ShortNames,
    Hdlc,
    Called,
    Bus {
        medium: &'static str,
        is_secondary: bool,
        is_enciphered: bool,
    },
    Port {
        kind: &'static str,
        protocol: &'static str,
        framing: Option<&'static str>,
        is_ciphered: bool,
    },
    /// It goes to the gateway, and says what it captures until that is confirmed.
    Caller {
        is_ciphered: bool,
    },
}

/// One meter of a fleet.
#[derive(Debug, Clone)]
pub(super) struct Drawn {
    protocol: Protocol,
    /// By name, as a fleet file has them.
    faults: Vec<(&'static str, f64)>,
}

/// One of several.
fn one_of<T: Copy>(random: &mut Random, all: &[T]) -> T {
    all[random.below(all.len() as u64) as usize]
}

fn percent(random: &mut Random, bound: u64) -> f64 {
    random.below(bound) as f64 / 100.0
}

impl Drawn {
    /// With a password, over the wrapper.
    pub(super) fn plain(random: &mut Random) -> Self {
        Self { protocol: Protocol::Wrapper(None), faults: faults_of_answers(random) }
    }

    /// Over the wrapper, protected mostly.
    pub(super) fn protected(random: &mut Random) -> Self {
        let mut faults = faults_of_answers(random);
        if random.below(7) == 0 {
            return Self { protocol: Protocol::Wrapper(None), faults };
        }
        let (kind, authentication, suite) = one_of(random, &PROTECTIONS);
        let ciphering = (authentication != "md5").then(|| one_of(random, &CIPHERINGS));
        let of_ciphered = |wanted: bool| wanted && ciphering.is_some();
        let tells_counter = !of_ciphered(random.below(4) == 0);
        let is_forged = of_ciphered(random.below(3) == 0);
        let jumps = of_ciphered(random.below(4) == 0);
        if is_forged {
            faults.extend(["wrong-tag", "replayed-answer", "downgrade"].map(|fault| (fault, 0.005)));
        }
        if jumps {
            faults.push(("counter-jump", 0.03));
        }
        let protection = Protection { kind, authentication, suite, ciphering, tells_counter, is_forged, jumps };
        Self { protocol: Protocol::Wrapper(Some(protection)), faults }
    }

    /// On a line that meters could share.
    pub(super) fn on_line(random: &mut Random) -> Self {
        let mut faults = faults_of_answers(random);
        let protocol = match random.below(3) {
            0 => Protocol::Hdlc,
            1 => {
                faults.push(("wrong-crc", percent(random, 4)));
                Protocol::Called
            }
            _ => {
                faults.push(("wrong-crc", percent(random, 4)));
                let medium = one_of(random, &["water", "heat", "electricity"]);
                Protocol::Bus { medium, is_secondary: random.below(2) == 0, is_enciphered: random.below(2) == 0 }
            }
        };
        Self { protocol, faults }
    }

    /// At a port.
    pub(super) fn pushing(random: &mut Random) -> Self {
        let (kind, protocol, framing, is_ciphered) = one_of(
            random,
            &[
                ("p1 with gas", "p1", None, false),
                ("p1, ciphered", "p1", None, true),
                ("sml", "sml", None, false),
                ("d0", "d0", None, false),
                ("dlms push in hdlc", "dlms", Some("hdlc"), false),
                ("dlms push in hdlc, ciphered", "dlms", Some("hdlc"), true),
                ("dlms push in m-bus", "dlms", Some("mbus"), false),
                ("dlms push in m-bus, ciphered", "dlms", Some("mbus"), true),
            ],
        );
        let mut faults = vec![("wrong-crc", 0.03), ("silence", 0.03), ("slow-answers", percent(random, 4))];
        if matches!(protocol, "sml" | "d0") {
            faults.extend(["line-noise", "dropped-bytes"].map(|fault| (fault, 0.03)));
        }
        Self { protocol: Protocol::Port { kind, protocol, framing, is_ciphered }, faults }
    }

    /// With short names, or going to a listener.
    pub(super) fn newcomer(random: &mut Random) -> Self {
        if random.below(2) == 0 {
            return Self { protocol: Protocol::ShortNames, faults: faults_of_answers(random) };
        }
        let faults = vec![("power-failure", random.below(8) as f64)];
        Self { protocol: Protocol::Caller { is_ciphered: random.below(2) == 0 }, faults }
    }

    /// What it counts as, of [`KINDS`].
    pub(super) fn kinds(&self) -> Vec<&'static str> {
        match self.protocol {
            Protocol::Wrapper(None) => vec!["password"],
            Protocol::Wrapper(Some(Protection { kind, ciphering, tells_counter, is_forged, jumps, .. })) => {
                let flags =
                    [("no counter object", !tells_counter), ("forged answers", is_forged), ("jumping counters", jumps)];
                let flags = flags.into_iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| flag);
                [kind].into_iter().chain(ciphering).chain(flags).collect()
            }
            Protocol::Hdlc => vec!["hdlc"],
            Protocol::Called => vec!["iec 62056-21"],
            Protocol::Bus { medium, is_secondary, is_enciphered } => {
                let medium = match medium {
                    "water" => "m-bus water",
                    "heat" => "m-bus heat",
                    _ => "m-bus electricity",
                };
                let address = if is_secondary { "m-bus by secondary address" } else { "m-bus by primary address" };
                [medium, address].into_iter().chain(is_enciphered.then_some("m-bus, enciphered")).collect()
            }
            Protocol::Port { kind, .. } => vec![kind],
            Protocol::ShortNames => vec!["short names"],
            Protocol::Caller { is_ciphered: false } => vec!["dlms going to a listener"],
            Protocol::Caller { is_ciphered: true } => vec!["dlms going to a listener, ciphered"],
        }
    }

    /// Where the gateway finds it, or it the gateway.
    pub(super) fn address(&self, number: u32) -> String {
        match self.protocol {
            Protocol::Caller { .. } => format!("127.0.0.1:{}", 4_059 + number),
            _ => format!("meter-{number}:4059"),
        }
    }

    /// Whether the gateway keeps the line open, as a serial port. Another connection for each turn is that of TCP.
    pub(super) fn stays_open(&self) -> bool {
        !matches!(self.protocol, Protocol::Wrapper(_) | Protocol::ShortNames)
    }

    /// A fleet file with this meter.
    pub(super) fn fleet_toml(&self, number: u32) -> String {
        let profile = format!(
            "profile = {{ capture_period_s = {PERIOD_S}, depth_entries = 400, columns = [\"import-register\", \"import-interval\"], \
             daily_depth_entries = 0, monthly_depth_entries = 0 }}\n"
        );
        let of_protocol = match self.protocol {
            Protocol::Wrapper(None) => format!("protocol = \"dlms-tcp\"\n{profile}"),
            Protocol::Wrapper(Some(Protection { authentication, suite, ciphering, .. })) => {
                let policy = if ciphering.is_some() { "authenticated-encrypted" } else { "none" };
                format!(
                    "protocol = \"dlms-tcp\"\n{profile}\
                     security = {{ authentication = \"{authentication}\", suite = {suite}, policy = \"{policy}\" }}\n"
                )
            }
            Protocol::ShortNames => format!("protocol = \"dlms-tcp\"\nreferencing = \"sn\"\n{profile}"),
            Protocol::Caller { is_ciphered } => format!(
                "protocol = \"dlms-notify\"\npush_to = \"{}\"\nencrypted = {is_ciphered}\n{profile}",
                self.address(number)
            ),
            Protocol::Hdlc => format!("protocol = \"dlms-hdlc\"\nhdlc_address_first = {PHYSICAL}\n{profile}"),
            // It offers a rate that nobody behind an address can change to.
            Protocol::Called => {
                format!("protocol = \"iec62056-21\"\ninitial_baud = {BAUD}\nbaud = 19200\n{profile}")
            }
            Protocol::Bus { medium, is_secondary, is_enciphered } => format!(
                "protocol = \"mbus\"\nmedium = \"{medium}\"\nbaud = {BAUD}\nencrypted = {is_enciphered}\n\
                 primary_address_first = {}\n",
                if is_secondary { 0 } else { number }
            ),
            Protocol::Port { protocol, framing, is_ciphered, .. } => {
                let protocol = if protocol == "dlms" { "dlms-push" } else { protocol };
                let framing = framing.map_or(String::new(), |framing| format!("framing = \"{framing}\"\n"));
                let gas = if protocol == "p1" { "gas = true\n" } else { "" };
                format!(
                    "protocol = \"{protocol}\"\ninterval_ms = {PUSH_EVERY_MS}\nencrypted = {is_ciphered}\n{framing}{gas}"
                )
            }
        };
        let faults: Vec<String> = self.faults.iter().map(|(fault, rate)| format!("{fault} = {rate:?}")).collect();
        format!(
            "[[meters]]\nfirst_number = {number}\nzone = \"CET\"\n{of_protocol}faults = {{ {} }}\n",
            faults.join(", ")
        )
    }

    /// The gateway's sections for it, once the simulator has said where it is. Secrets go into files in `folder`.
    pub(super) fn gateway_toml(
        &self,
        number: u32,
        meter: &str,
        place: &LinePlace,
        folder: &Path,
    ) -> anyhow::Result<String> {
        let secrets = Secrets { folder, number };
        let address = place.address.as_ref().context("a place without an address")?;
        let password = || secrets.file("password_file", place.password.as_ref());
        let keys = || {
            let encryption = secrets.file("encryption_key_file", place.encryption_key.as_ref())?;
            anyhow::Ok(encryption + &secrets.file("authentication_key_file", place.authentication_key.as_ref())?)
        };
        let profile = format!(
            "[[meter.read]]\nsource = \"profile\"\nprofile = \"1-0:99.1.0\"\nevery_s = {PERIOD_S}\nbackfill_days = 1\n\
             kinds = {{ \"1-0:1.29.0\" = \"interval\" }}\n"
        );
        let cet = "utc_offset_minutes = 60\ndaylight_saving_minutes = 60\n";
        let of_meter = match self.protocol {
            Protocol::Port { protocol, framing, .. } => {
                return Ok(port_toml(number, &format!("tcp = \"{address}\"\n"), protocol, framing, &keys()?));
            }
            Protocol::Caller { .. } => {
                return Ok(port_toml(number, &format!("tcp_listen = \"{address}\"\n"), "dlms", None, &keys()?));
            }
            Protocol::ShortNames => format!(
                "protocol = \"dlms-wrapper\"\nreferencing = \"short-names\"\nserver = 1\nclient = 1\n{}{profile}",
                password()?
            ),
            Protocol::Wrapper(protection) => {
                let proof = match (protection, &place.security) {
                    (Some(protection), Some(told)) => protection.gateway_toml(told, &password()?, &secrets)?,
                    _ => password()?,
                };
                format!("protocol = \"dlms-wrapper\"\nserver = 1\nclient = 1\n{proof}{profile}")
            }
            Protocol::Hdlc => format!(
                "protocol = \"dlms-hdlc\"\nphysical = {PHYSICAL}\nserver = 1\nclient = 1\n{}{profile}",
                password()?
            ),
            Protocol::Called => {
                let address = place.device_address.as_ref().context("a meter that is not called")?;
                format!(
                    "protocol = \"iec62056-21\"\naddress = \"{address}\"\ninitial_baud = {BAUD}\n{cet}{}{profile}",
                    password()?
                )
            }
            Protocol::Bus { is_secondary, .. } => {
                let primary = place.primary_address.map(|primary| primary.to_string());
                let address = if is_secondary { place.secondary_address.clone() } else { primary };
                format!(
                    "protocol = \"mbus\"\naddress = \"{}\"\ninitial_baud = {BAUD}\n{cet}clock_check = \"off\"\n{}\
                     [[meter.read]]\nsource = \"readout\"\nevery_s = {PERIOD_S}\n",
                    address.context("a meter without an address")?,
                    keys()?
                )
            }
        };
        let serial = place.identity.as_deref().unwrap_or(meter);
        Ok(format!(
            "[[line]]\nname = \"line-{number}\"\ntcp = \"{address}\"\n\
             [[meter]]\nname = \"m{number}\"\nline = \"line-{number}\"\nserial = \"{serial}\"\n{of_meter}"
        ))
    }
}

fn port_toml(number: u32, medium: &str, protocol: &str, framing: Option<&str>, keys: &str) -> String {
    let framing = framing.map_or(String::new(), |framing| format!("framing = \"{framing}\"\n"));
    format!(
        "[[port]]\nname = \"port-{number}\"\nprotocol = \"{protocol}\"\n{medium}{framing}{keys}every_s = 1\n\
         registers_every_s = 1\nclock_check = \"off\"\nsilent_after_s = 120\n"
    )
}

impl Protection {
    fn gateway_toml(self, told: &SecurityPlace, password: &str, secrets: &Secrets<'_>) -> anyhow::Result<String> {
        let Self { authentication, suite, .. } = self;
        let has_password = !matches!(authentication, "gmac" | "ecdsa");
        let password = if has_password { password } else { "" };
        let proof = format!("authentication = \"{authentication}\"\n{password}");
        let Some(ciphering) = self.ciphering else { return Ok(proof) };
        let counter = if self.tells_counter { "" } else { "counter_from_meter = \"off\"\n" };
        let keys = [
            ("encryption_key_file", Some(&told.encryption_key)),
            ("authentication_key_file", Some(&told.authentication_key)),
            ("signing_key_file", told.signing_key.as_ref()),
            ("meter_public_key_file", told.meter_public_key.as_ref()),
        ];
        let keys: String =
            keys.into_iter().map(|(setting, key)| secrets.file(setting, key)).collect::<Result<_, _>>()?;
        let title = &told.meter_title;
        Ok(format!(
            "{proof}security_suite = {suite}\nciphering = \"{ciphering}\"\nmeter_title = \"{title}\"\n{counter}{keys}"
        ))
    }
}

/// Of one meter, in files of its own.
struct Secrets<'f> {
    folder: &'f Path,
    number: u32,
}

impl Secrets<'_> {
    /// The setting that names the file of a secret; nothing where there is none.
    fn file(&self, setting: &str, secret: Option<&String>) -> anyhow::Result<String> {
        let Some(secret) = secret else { return Ok(String::new()) };
        key_file(self.folder, &self.number.to_string(), setting, secret)
    }
}

/// Of meters that are asked: in some lives, power fails once or twice within the two hours.
fn faults_of_answers(random: &mut Random) -> Vec<(&'static str, f64)> {
    vec![
        ("power-failure", random.below(8) as f64),
        ("slow-answers", percent(random, 5)),
        ("silence", percent(random, 5)),
    ]
}
