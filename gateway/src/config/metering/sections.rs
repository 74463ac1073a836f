//! The sections as they are written, defaults beside the fields.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::clock_set::ClockSetSection;
use crate::config::security::{AuthenticationName, CipheringName, PolicyName, SigningName};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Parity {
    #[default]
    None,
    Even,
    Odd,
}

/// One half-duplex medium: a serial port or a TCP endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LineSection {
    /// Unique; meters name it.
    pub name: String,
    /// A device, best by its stable name: `/dev/serial/by-id/...`.
    pub serial: Option<PathBuf>,
    /// `host:port` of a meter, or of a serial device server.
    pub tcp: Option<String>,
    /// `host:port` of a meter that speaks DLMS in datagrams (`dlms-wrapper`).
    pub udp: Option<String>,
    /// Of a serial port.
    pub baud: u32,
    /// Of a serial port: 7 or 8.
    pub data_bits: u8,
    /// Of a serial port: `none`, `even` or `odd`.
    pub parity: Parity,
    /// Of a serial port: 1 or 2.
    pub stop_bits: u8,
    /// Of a serial port: the level of RTS while the gateway sends, for RS-485 whose direction RTS switches; while it listens, RTS has the
    /// other. Without it RTS is left alone, as most adapters want it, which switch by themselves.
    pub rts_on_send: Option<bool>,
    /// Silence between two meters, so that the line and its converters settle.
    pub gap_ms: u64,
    /// The longest that one meter has the line at a time.
    pub budget_s: u64,
    /// How long a TCP endpoint may take to answer.
    pub connect_timeout_ms: u64,
    /// IEC 62056-21 and M-Bus: the line gives back what is sent, as optical heads, two-wire current loops and some level converters do. HDLC
    /// tells its own frames by itself.
    pub echo: bool,
    /// IEC 62056-21: the port cannot do 7E1, or a serial device server does not: it stays 8N1, and parity is put on and checked here.
    pub masked_parity: bool,
}

impl Default for LineSection {
    fn default() -> Self {
        Self {
            name: String::new(),
            serial: None,
            tcp: None,
            udp: None,
            baud: 9600,
            data_bits: 8,
            parity: Parity::None,
            stop_bits: 1,
            rts_on_send: None,
            gap_ms: 20,
            budget_s: 120,
            connect_timeout_ms: 5_000,
            echo: false,
            masked_parity: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeterProtocol {
    #[default]
    DlmsWrapper,
    DlmsHdlc,
    #[serde(rename = "iec62056-21")]
    Iec62056_21,
    Mbus,
    Wmbus,
}

impl MeterProtocol {
    pub const fn name(self) -> &'static str {
        match self {
            Self::DlmsWrapper => "dlms-wrapper",
            Self::DlmsHdlc => "dlms-hdlc",
            Self::Iec62056_21 => "iec62056-21",
            Self::Mbus => "mbus",
            Self::Wmbus => "wmbus",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Switch {
    #[default]
    On,
    Off,
}

/// How requests name what a meter's objects have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReferencingName {
    #[default]
    LogicalNames,
    ShortNames,
}

/// How there comes to be an association.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AssociationName {
    #[default]
    Negotiated,
    PreEstablished,
}

/// What this meter does differently; see `protocols::dlms::client::Quirks` for where each was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuirksSection {
    /// Ends an association by hanging up: it does not answer a release.
    pub no_release: bool,
    /// Has to be disconnected before it can be connected.
    pub disconnect_first: bool,
    /// Numbers the blocks of a long answer from 0.
    pub blocks_from_zero: bool,
    /// Writes the conformance block with a tag of one octet.
    pub short_conformance_tag: bool,
    /// Null-data in the clock column of a profile repeats the label above instead of advancing it by one period.
    pub null_clock_repeats: bool,
    /// Null-data in a value column of a profile means that nothing was captured.
    pub null_value_absent: bool,
    /// Leaves the system title out of general-glo and general-ded.
    pub empty_title: bool,
    /// Announces another security suite than the one that its keys are of.
    pub any_suite: bool,
    /// Wants the proof of `gmac` under the invocation counter of the APDU that carries it, which weakens the key: only for meters that
    /// refuse everything else.
    pub proof_shares_counter: bool,
    /// Wants the proof of high level security under the dedicated key.
    pub proof_under_dedicated: bool,
    /// Derives agreed keys with the algorithm ids that the eighth edition of the Green Book prints in its table.
    pub algorithms_of_edition_8: bool,
    /// Labels the entries of its profiles with the start of their period, not its end: those of periods below a day are put at
    /// the end, days and months keep their label. Of M-Bus: dates of stored values are the start of their day. To be set before the
    /// first read: what was read without it stays where it was put.
    pub label_at_start: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeterSection {
    /// Unique on the gateway; a label, not the identity.
    pub name: String,
    /// The line that it is on.
    pub line: String,
    /// Wireless M-Bus: the port whose receiver hears it.
    pub port: String,
    /// Whose profile holds what this section leaves out: a name that `meterpost-gateway profiles` lists.
    pub profile: Option<String>,
    /// `dlms-wrapper`, `dlms-hdlc`, `iec62056-21` (read-outs of modes A, B and C, programming mode), `mbus` (wired) or `wmbus` (wireless
    /// M-Bus, OMS: it is only heard).
    pub protocol: MeterProtocol,
    /// Who reads: 16 is the public client.
    pub client: u16,
    /// The logical device: upper HDLC address, or wPort.
    pub server: u16,
    /// HDLC: the physical device, lower address.
    pub physical: Option<u16>,
    /// HDLC: 1, 2 or 4; by default the shortest that the address fits.
    pub address_octets: Option<u8>,
    /// DLMS: `logical-names`, or `short-names` of older meters, whose object list is read at the beginning of each session.
    pub referencing: ReferencingName,
    /// DLMS: `negotiated`, or `pre-established` where the meter has an association for this client without being asked: nobody proves
    /// anything, and with keys `meter_title` has to be set.
    pub association: AssociationName,
    /// A file that holds the password: of low level security, the secret of high level security (`manufacturer`, `md5`, `sha1`,
    /// `sha256`), or of programming mode (P1). Without it, none is sent.
    pub password_file: Option<PathBuf>,
    /// DLMS: how client and meter prove who they are: `none`, `low`, or by high level security `manufacturer` (2), `md5` (3), `sha1` (4),
    /// `gmac` (5), `sha256` (6), `ecdsa` (7). Default `low` with a password, else `none`.
    pub authentication: Option<AuthenticationName>,
    /// DLMS: how each APDU is protected, both ways: `none`, `authenticated`, `encrypted`, `authenticated-encrypted`. What the meter
    /// protects less is not accepted. Default `authenticated-encrypted` with keys, else `none`.
    pub security_policy: Option<PolicyName>,
    /// DLMS: 0, 1 or 2, by which keys have 16, 16 or 32 octets. Default 0.
    pub security_suite: Option<u8>,
    /// DLMS: `global` (glo-), `dedicated` (ded-, by a key that is drawn for each association), `general-global`,
    /// `general-dedicated`; or by general-ciphering `identified` (the global key, named), `wrapped` (a key that is drawn for each
    /// association, under the key-encrypting key), `one-pass` or `static-unified` (a key that both sides agree on by their key pairs; of
    /// suites 1 and 2). Default `global`.
    pub ciphering: Option<CipheringName>,
    /// DLMS: general-signing of each APDU, both ways, of suites 1 and 2: `inside` of the ciphering, as is usual, or `outside`. What the
    /// meter does not sign is not accepted. Default: nothing is signed.
    pub signing: Option<SigningName>,
    /// DLMS: a file that holds the global unicast encryption key (GUEK) in hexadecimal digits; M-Bus, wired and wireless: the key of an
    /// enciphered meter (modes 5 and 7, counter mode of the extended link layer); of a wireless one what comes in clear is refused then. As
    /// of all keys, nobody but its owner may read it. Each meter has a key of its own: DLMS meters that share one are safe from each other's
    /// counters as long as the outbox lives.
    pub encryption_key_file: Option<PathBuf>,
    /// DLMS: a file that holds the global authentication key (GAK).
    pub authentication_key_file: Option<PathBuf>,
    /// DLMS: a file that holds the key-encrypting key (master key, KEK), under which `ciphering = "wrapped"` and the command `keys` send
    /// others.
    pub key_encrypting_key_file: Option<PathBuf>,
    /// DLMS, `ecdsa`, `signing` and `one-pass`: a file that holds our private key, of P-256 (suite 1) or P-384 (suite 2).
    pub signing_key_file: Option<PathBuf>,
    /// DLMS, `ecdsa`, `signing` and `one-pass`: a file that holds x and y of the meter's public key, or its certificate in PEM or DER.
    pub meter_public_key_file: Option<PathBuf>,
    /// DLMS, `one-pass` and `static-unified`: a file that holds our private key of agreements, of the same curve.
    pub agreement_key_file: Option<PathBuf>,
    /// DLMS, `one-pass` and `static-unified`: a file that holds x and y of the meter's public key of agreements, or its certificate.
    pub meter_agreement_key_file: Option<PathBuf>,
    /// DLMS: a file with the certificates of those who sign certificates of meters, in PEM or DER. A certificate that none of them signed, or that
    /// names another system title than `meter_title`, is refused at the start; a meter whose certificate has expired is not read, and its state says so.
    pub meter_ca_file: Option<PathBuf>,
    /// DLMS: our own system title, 16 hexadecimal digits. Default: one that follows from the gateway's id. A meter that knows its
    /// clients by their titles has to be told of it.
    pub client_title: Option<String>,
    /// DLMS: the system title that the meter has to have. Without it, whoever has the keys is the meter.
    pub meter_title: Option<String>,
    /// DLMS: octets of our challenge in high level security, 8 to 64. Default 16: more fail with some meters.
    pub challenge_octets: Option<usize>,
    /// DLMS: whether the meter's own invocation counter is read before the first word under its key, and after it hung up without one.
    /// `off` for meters without such an object: then nothing is read before the cloud has told the time.
    pub counter_from_meter: Switch,
    /// DLMS: where. Default 0-0:43.1.0.
    pub counter_object: Option<String>,
    /// DLMS: who may read it without any security. Default 16.
    pub counter_client: Option<u16>,
    /// Who has to answer here: logical device name, or device id 0-0:96.1.0; of M-Bus maker, number, version and medium, as
    /// `HYD:26718590:28:04`. Of wireless M-Bus the name under which its values are stored, where the one on its label is another than it
    /// sends.
    pub serial: Option<String>,
    /// Where the energy is metered; goes to the cloud with the inventory.
    pub metering_point: Option<String>,
    /// `off` for a meter whose clock is known to be wrong, as that of an accelerated one.
    pub clock_check: Switch,
    /// Beyond this, its state says that its clock is off.
    pub clock_off_above_s: u32,
    /// Ahead of UTC in standard time, for a meter whose clock does not state it.
    pub utc_offset_minutes: i16,
    /// Added while such a meter says that daylight saving is active; of IEC 62056-21 and M-Bus, by the rule of the European Union: 0 or
    /// 60.
    pub daylight_saving_minutes: i16,
    /// IEC 62056-21: the device address, up to 32 characters. Without it, whoever is at the optical head answers. M-Bus: the primary
    /// address, 0 to 250, or 254 for the only meter of a line; or the secondary one, 8 digits of the number, or 16 with maker,
    /// version and medium as they are sent, F for any. Wireless M-Bus: who sends: maker, number, version and medium, as
    /// `HYD:26718590:28:04`, which the gateway says of a meter that it hears and no section names.
    pub address: Option<String>,
    /// IEC 62056-21: the rate at which the meter is called. Default 300. M-Bus over TCP: the rate behind the endpoint. Default 2400.
    pub initial_baud: Option<u32>,
    /// IEC 62056-21: the fastest rate that the line carries; a meter that offers more is read at the initial rate. Default 19200, over
    /// TCP the initial rate, since nobody there can change it.
    pub baud_max: Option<u32>,
    /// IEC 62056-21: asks for a read-out: `0`, or `6` to `9` for a maker's own tables. Default `0`.
    pub readout_character: Option<char>,
    /// IEC 62056-21: wakes a meter with a battery by NUL for so long. Default: it is not woken.
    pub wake_up_ms: Option<u32>,
    /// IEC 62056-21: between the choice of the rate and its change. Default: just before the meter may begin to answer.
    pub change_over_ms: Option<u32>,
    /// IEC 62056-21: the read command for registers, 1 to 6. Default 1.
    pub read_command: Option<u8>,
    /// IEC 62056-21: the read command for load profiles and log books, 1 to 6. Default 5.
    pub profile_command: Option<u8>,
    /// IEC 62056-21: how the range of a profile is written: `zst10`, `zst11`, `zst12`, `zst13`, by their digits. Default `zst13`.
    pub stamp_form: Option<StampFormName>,
    /// IEC 62056-21: registers are asked for as `1-0:1.8.0*255` and not as `1.8.0`. Default false.
    pub full_codes: Option<bool>,
    /// M-Bus: resets the application before each read-out; 0 without a subcode, others choose what is told. Default: it is not reset.
    pub application_reset: Option<u8>,
    /// Wireless M-Bus: not heard for so long, it counts as silent. Meters send every few seconds, or once a day. Default 86400.
    pub silent_after_s: Option<u32>,
    /// IEC 62056-21 and M-Bus: what this meter does differently, by name. IEC 62056-21, of the conversation, all off: `ignores_rate`,
    /// `accept_invalid_bcc`, `any_answer_address`, `acknowledge_readout`; of what it says: `sign_padding`, `billing_inherits_unit`,
    /// `doubled_groups` (on), `billing_zero_is_current`, `units_by_code`, `unit_without_asterisk` (off). M-Bus: `length_overflow`,
    /// `maker_extensions` (on), `season_by_calendar` (off).
    pub line_quirks: BTreeMap<String, bool>,
    pub quirks: QuirksSection,
    pub clock_set: Option<ClockSetSection>,
    /// What the bits of a status in a profile's entries say, by number, as `{ 6 = "power-failure" }`: `critical-error`, `clock-invalid`,
    /// `not-valid`, `clock-adjusted`, `power-failure`, or `good` for what says nothing against a value. Those that are not named are as
    /// the AMR profile status has them: 0, 1, 2, 5 and 7 in this order.
    pub status_bits: BTreeMap<String, String>,
    /// Which column of a profile is its status, as `0-0:96.240.12/18`, where it is no AMR profile status (0-b:96.10.e).
    pub status_columns: Vec<String>,
    /// What is read; by default the load profile and the import register, of IEC 62056-21 and M-Bus the read-out.
    pub read: Vec<ReadSection>,
}

/// Digits of a stamp, the odd ones with a digit for the season.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StampFormName {
    Zst10,
    Zst11,
    Zst12,
    Zst13,
}

impl Default for MeterSection {
    fn default() -> Self {
        Self {
            name: String::new(),
            line: String::new(),
            port: String::new(),
            profile: None,
            protocol: MeterProtocol::DlmsWrapper,
            client: 16,
            server: 1,
            physical: None,
            address_octets: None,
            referencing: ReferencingName::LogicalNames,
            association: AssociationName::Negotiated,
            password_file: None,
            authentication: None,
            security_policy: None,
            security_suite: None,
            ciphering: None,
            signing: None,
            encryption_key_file: None,
            authentication_key_file: None,
            key_encrypting_key_file: None,
            signing_key_file: None,
            meter_public_key_file: None,
            agreement_key_file: None,
            meter_agreement_key_file: None,
            meter_ca_file: None,
            client_title: None,
            meter_title: None,
            challenge_octets: None,
            counter_from_meter: Switch::On,
            counter_object: None,
            counter_client: None,
            serial: None,
            metering_point: None,
            clock_check: Switch::On,
            clock_off_above_s: 60,
            utc_offset_minutes: 0,
            daylight_saving_minutes: 0,
            address: None,
            initial_baud: None,
            baud_max: None,
            readout_character: None,
            wake_up_ms: None,
            change_over_ms: None,
            read_command: None,
            profile_command: None,
            stamp_form: None,
            full_codes: None,
            application_reset: None,
            silent_after_s: None,
            line_quirks: BTreeMap::new(),
            quirks: QuirksSection::default(),
            clock_set: None,
            status_bits: BTreeMap::new(),
            status_columns: Vec::new(),
            read: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A load profile: every entry, gaps re-read.
    #[default]
    Profile,
    Registers,
    Instants,
    /// An event log: a profile whose entries are kept as events.
    Events,
    /// IEC 62056-21 and M-Bus: all that the meter reads out.
    Readout,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReadSection {
    /// `profile`, `registers`, `instants` or `events`; of IEC 62056-21 also `readout`, of M-Bus only that.
    pub source: Source,
    /// Registers and instants: what to read. Profile and read-out: which columns and values, all when empty.
    pub codes: Vec<String>,
    /// Default 900, instants 60.
    pub every_s: Option<u32>,
    /// What the values are; by default as the code says.
    pub kind: Option<String>,
    /// The same for single codes.
    pub kinds: BTreeMap<String, String>,
    /// Default 1-0:99.1.0, events 0-0:99.98.0.
    pub profile: Option<String>,
    /// How far back the first read goes.
    pub backfill_days: u32,
}

impl Default for ReadSection {
    fn default() -> Self {
        Self {
            source: Source::Profile,
            codes: Vec::new(),
            every_s: None,
            kind: None,
            kinds: BTreeMap::new(),
            profile: None,
            backfill_days: 40,
        }
    }
}

/// What a meter pushes at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortProtocol {
    #[default]
    P1,
    Sml,
    D0,
    Dlms,
    Wmbus,
}

/// What listens to the radio, and how it hands out what it hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReceiverName {
    RtlWmbus,
    Hex,
    Cul,
    Im871a,
    Amb8465,
}

/// What it listens for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RadioModeName {
    #[default]
    Ct,
    T,
    C,
    S,
}

/// In which frames a meter pushes DLMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PushFraming {
    #[default]
    Hdlc,
    Mbus,
    Wrapper,
}

/// A port at which a meter pushes telegrams.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PortSection {
    /// Unique.
    pub name: String,
    /// Whose profile holds what this section leaves out: a name that `meterpost-gateway profiles` lists.
    pub profile: Option<String>,
    /// What the meter pushes: `p1` (DSMR, e-MUCS), `sml`, `d0` (read-outs of IEC 62056-21, unasked), or `dlms` (data-notifications);
    /// `wmbus`: a receiver of wireless M-Bus, whose meters have sections of their own.
    pub protocol: PortProtocol,
    /// Wireless M-Bus: what the receiver hands out: `rtl-wmbus` (its lines), `hex` (a frame in hexadecimal digits a line), `cul` (culfw),
    /// `im871a` (IMST, binary), `amb8465` (Amber, Würth, command frames: its UART_CMD_Out has to be on).
    pub receiver: Option<ReceiverName>,
    /// Wireless M-Bus: what `cul`, `im871a` and `amb8465` are told to listen for: `ct` (modes C and T, an iM871A from firmware 1.4 on), `c`,
    /// `t` or `s`. Others are told where they are started. Default `ct`.
    pub radio_mode: Option<RadioModeName>,
    /// A device, best by its stable name: `/dev/serial/by-id/...`.
    pub serial_port: Option<PathBuf>,
    /// `host:port` of a serial device server.
    pub tcp: Option<String>,
    /// DLMS: an address and port of this machine, as `0.0.0.0:4059`, to which meters connect to push. A push that a meter wants to have
    /// confirmed is confirmed once it is stored, protected as it was. Without `encryption_key_file`, anybody who reaches the port may
    /// say anything: beyond loopback that takes `accept_unauthenticated = true`.
    pub tcp_listen: Option<String>,
    /// DLMS: the same for datagrams.
    pub udp_listen: Option<String>,
    /// Of a serial port. Default 115200 for P1 (9600 with 7E1 before DSMR 4), 2400 for DLMS, 38400 for a CUL, 57600 for an iM871A, else
    /// 9600.
    pub baud: Option<u32>,
    /// Of a serial port: 7 or 8. Default 8, for D0 7.
    pub data_bits: Option<u8>,
    /// Of a serial port: `none`, `even` or `odd`. Default even for D0 and DLMS, else none.
    pub parity: Option<Parity>,
    /// Of a serial port: 1 or 2.
    pub stop_bits: u8,
    /// D0: the port hands over eight bits of which the last is even parity, as many serial device servers do: octets whose parity is
    /// wrong spoil the line in which they stand.
    pub masked_parity: bool,
    /// Takes telegrams whose CRC or block check is wrong, or whose CRC is missing; never a cure for a bad cable.
    pub accept_invalid_crc: bool,
    /// Momentary values.
    pub every_s: u32,
    /// Registers, on the full period.
    pub registers_every_s: u32,
    /// Without a telegram for so long the meter counts as silent. Default 60; of wireless M-Bus, where it is about telegrams of any meter,
    /// 3600.
    pub silent_after_s: Option<u32>,
    /// DLMS: the frames of the pushes: `hdlc`, `mbus` for long frames of M-Bus (Austria, Switzerland), or `wrapper` as on IP networks.
    /// Default `hdlc`, and `wrapper` where meters come to us.
    pub framing: Option<PushFraming>,
    /// P1 and DLMS: a file with the key that pushes are encrypted with, 32 or 64 hexadecimal digits. Nobody but its owner may read it.
    /// With it, only encrypted pushes are taken.
    pub encryption_key_file: Option<PathBuf>,
    /// P1 and DLMS: the same for the authentication key. Without it, P1 has that of Luxembourg, which is public.
    pub authentication_key_file: Option<PathBuf>,
    /// P1 and DLMS: the system title that encrypted pushes have to come from, 16 hexadecimal digits. Without it, whoever has the keys is
    /// the meter.
    pub system_title: Option<String>,
    /// DLMS: the same of several meters that push at one port, as they come to a listener.
    pub system_titles: Vec<String>,
    /// DLMS in wrapper frames: our own system title, 16 hexadecimal digits, under which confirmations of encrypted pushes go. The default
    /// follows from the gateway's id.
    pub client_title: Option<String>,
    /// P1 and DLMS: takes encrypted pushes that nobody can tell from altered ones, as their values are then marked: those without a
    /// tag, and those with one where the operator withholds the authentication key. Nothing keeps recorded ones from being played back,
    /// and no meter is told that they are stored.
    /// Of meters that come to us: takes pushes in clear of whoever reaches the port.
    pub accept_unauthenticated: bool,
    /// DLMS: what numbers without a unit of their own count, by code, as `{ "1-0:1.8.0" = "10 Wh", "1-0:32.7.0" = "0.1 V" }`; a
    /// transformer's factor where the meter leaves it out. Without, such numbers are stored bare.
    pub scaling: BTreeMap<String, String>,
    /// DLMS: ahead of UTC in standard time, for a meter whose clock does not state it.
    pub utc_offset_minutes: i16,
    /// DLMS: added while such a meter says that daylight saving is active.
    pub daylight_saving_minutes: i16,
    /// Which meter has to be at this port: its equipment identifier, of SML its server id as on its label.
    pub serial: Option<String>,
    /// Where the energy is metered; goes to the cloud with the inventory.
    pub metering_point: Option<String>,
    /// `off` for a meter whose clock is known to be wrong, as that of an accelerated one.
    pub clock_check: Switch,
    /// Beyond this, its state says that its clock is off.
    pub clock_off_above_s: u32,
    /// What this meter does differently, by name, as `{ kermit_crc = false }`. SML: `kermit_crc`, `bare_time`,
    /// `local_time_under_any_choice`, `unset_clock`, `four_fill_octets`, `dzg_short_power` (on unless switched off),
    /// `power_sign_from_status`, `list_length_by_content` (off). D0: `sign_padding`, `billing_inherits_unit`, `doubled_groups` (on),
    /// `billing_zero_is_current`, `units_by_code`, `unit_without_asterisk` (off). Each is described in `quirks.rs` of its protocol.
    pub quirks: BTreeMap<String, bool>,
}

impl PortSection {
    /// Whether its meters come to us.
    pub(in crate::config) const fn listens(&self) -> bool {
        self.tcp_listen.is_some() || self.udp_listen.is_some()
    }
}

impl Default for PortSection {
    fn default() -> Self {
        Self {
            name: String::new(),
            profile: None,
            protocol: PortProtocol::P1,
            receiver: None,
            radio_mode: None,
            serial_port: None,
            tcp: None,
            tcp_listen: None,
            udp_listen: None,
            baud: None,
            data_bits: None,
            parity: None,
            stop_bits: 1,
            masked_parity: false,
            accept_invalid_crc: false,
            framing: None,
            encryption_key_file: None,
            authentication_key_file: None,
            system_title: None,
            system_titles: Vec::new(),
            client_title: None,
            accept_unauthenticated: false,
            scaling: BTreeMap::new(),
            utc_offset_minutes: 0,
            daylight_saving_minutes: 0,
            every_s: 60,
            registers_every_s: 900,
            silent_after_s: None,
            serial: None,
            metering_point: None,
            clock_check: Switch::On,
            clock_off_above_s: 60,
            quirks: BTreeMap::new(),
        }
    }
}
