use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use protocols::cosem::security_setup::GlobalKey;
use protocols::dlms::acse::Mechanism;
use protocols::dlms::security::{AgreementKey, Signing, SigningKey};

use super::*;
use crate::config::Config;
use crate::config::metering::MeterSettings;

const GATEWAY: &str = "[gateway]\nid = \"gw\"\n[[line]]\nname = \"l\"\ntcp = \"localhost:4059\"\n";
const METER: &str = "[[meter]]\nname = \"m\"\nline = \"l\"\nclient = 1\n";

/// Files that hold a password, keys of 16, 32, 48, 64 and 96 octets, and the lines that name them.
struct Secrets(tempfile::TempDir);

impl Secrets {
    fn new() -> Self {
        let secrets = Self(tempfile::tempdir().unwrap());
        secrets.write("password", "12345678\n");
        for (name, digits) in [("e16", "1a".repeat(16)), ("a16", "2b".repeat(16)), ("e32", "3c".repeat(32))] {
            secrets.write(name, &digits);
        }
        secrets
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Names followed by `@` are those of files here.
    fn meter(&self, text: &str) -> Result<Arc<MeterSettings>, String> {
        let folder = self.0.path().display();
        let text: String = text.lines().map(|line| line.replace('@', &format!("{folder}/")) + "\n").collect();
        let parsed = Config::parse(&format!("{GATEWAY}{METER}{text}"), Path::new("gateway.toml"));
        let checked = parsed.and_then(Config::check).map_err(|error| error.to_string())?;
        // What check-config prints is what is done, and reads back as the same.
        let printed = Config::parse(&toml::to_string(&checked.config).unwrap(), Path::new("printed.toml"));
        assert_eq!(printed.and_then(Config::check).unwrap().lines, checked.lines);
        Ok(checked.lines[0].meters[0].clone())
    }
}

const KEYS: &str = "encryption_key_file = \"@e16\"\nauthentication_key_file = \"@a16\"\n";
const GMAC: &str = "authentication = \"gmac\"\n";
const PASSWORD: &str = "password_file = \"@password\"\n";

#[test]
fn a_password_alone_is_low_level_security_and_keys_protect_everything() {
    let secrets = Secrets::new();
    let security = |text: &str| secrets.meter(text).unwrap().security.clone();
    assert!(matches!(security(""), SecuritySettings { proof: Proof::None, cipher: None, .. }));
    assert!(matches!(security(PASSWORD), SecuritySettings { proof: Proof::Low(_), cipher: None, .. }));
    let SecuritySettings { proof, cipher, .. } = security(&format!("{GMAC}{KEYS}"));
    assert!(matches!(proof, Proof::High { how: HighLevel::Gmac, challenge_octets: 16 }));
    let CipherSettings { config, has_dedicated_key, certificate: None, next: None, counter } = *cipher.unwrap() else {
        panic!("a key is about to change")
    };
    assert_eq!((config.level, config.minimum), (Level::AUTHENTICATED_ENCRYPTED, Level::AUTHENTICATED_ENCRYPTED));
    assert_eq!((config.suite, config.peer, has_dedicated_key), (SecuritySuite::Suite0, None, false));
    assert_eq!(config.keys.unicast, Some(Key::from([0x1a; 16])));
    assert_eq!(config.keys.authentication, Some(Key::from([0x2b; 16])));
    let addressing = Addressing::Wrapper { client: 16, server: 1 };
    assert_eq!(counter, Some(CounterObject { addressing, obis: ObisCode::new(0, 0, 43, 1, 0, 255) }));
    let dedicated = security(&format!("{GMAC}{KEYS}ciphering = \"general-dedicated\"\ncounter_from_meter = \"off\"\n"));
    let dedicated = dedicated.cipher.unwrap();
    assert_eq!((dedicated.has_dedicated_key, dedicated.config.wrapping), (true, Wrapping::General));
    assert_eq!(dedicated.counter, None);
    // A hash of password and titles needs no keys.
    let hashed = security(&format!("authentication = \"sha256\"\n{PASSWORD}")).cipher.unwrap();
    assert_eq!((hashed.config.level, hashed.counter), (Level::NONE, None));
}

/// It is what meters know the gateway by: it must never change.
#[test]
fn the_title_of_a_gateway_follows_from_its_id() {
    let title = |id: &str| title_of(&GatewayId::new(id).unwrap()).to_string();
    assert_eq!([title("gw"), title("gw-2")], ["XMP 584d5007b53f74a3", "XMP 584d5072349fe2e8"]);
}

#[test]
fn what_does_not_hold_together_is_refused_with_a_hint() {
    let secrets = Secrets::new();
    secrets.write("p256", &"07".repeat(32));
    secrets.write("nopoint", &"07".repeat(64));
    let ecdsa = "authentication = \"ecdsa\"\nsecurity_suite = 1\nsigning_key_file = \"@p256\"\n";
    let policy = |policy: &str| format!("security_policy = {policy:?}\n");
    let cases = [
        (GMAC.to_owned(), "\"gmac\" needs keys\nhint: set encryption_key_file"),
        (KEYS.to_owned(), "who ciphers has to authenticate himself\nhint: set authentication, mostly \"gmac\""),
        (format!("{PASSWORD}{}", policy("encrypted")), "security_policy is set, but there are no keys"),
        (format!("authentication = \"sha256\"\n{PASSWORD}{}", policy("encrypted")), "security_policy needs keys"),
        (format!("{GMAC}encryption_key_file = \"@e16\"\n"), "without an authentication key nothing"),
        (format!("{GMAC}authentication_key_file = \"@a16\"\n"), "\"gmac\" needs keys"),
        (format!("{PASSWORD}{KEYS}{}", policy("none")), "security_policy = \"none\" uses none"),
        (format!("{GMAC}{KEYS}{PASSWORD}"), "authentication = \"gmac\" has no use for a password"),
        ("authentication = \"md5\"\n".to_owned(), "authentication = \"md5\" needs a password\nhint: set password_file"),
        (format!("{PASSWORD}signing_key_file = \"@p256\"\n"), "signing_key_file is set, but there are no keys"),
        (
            format!("{GMAC}{KEYS}signing_key_file = \"@p256\"\n"),
            "a key of signatures is set, and nothing is signed\nhint: set auth",
        ),
        (ecdsa.to_owned(), "needs our private key and the meter's public one"),
        (format!("{ecdsa}meter_public_key_file = \"@nopoint\"\n"), "meter_public_key_file: the octets are no key"),
        (
            format!("{ecdsa}meter_public_key_file = \"@nopoint\"\n").replace("suite = 1", "suite = 0"),
            "security suite 0 has no signatures\nhint: set security_suite = 1",
        ),
        (format!("{GMAC}{KEYS}security_suite = 2\n"), "it holds 32 digits\nhint: 64 hexadecimal digits"),
        (format!("{GMAC}{KEYS}security_suite = 3\n"), "security_suite = 3 does not exist\nhint: 0, 1 or 2"),
        (format!("{GMAC}{KEYS}client_title = \"00\"\n"), "client_title: a system title has 8 octets"),
        (
            format!("{GMAC}{KEYS}client_title = \"4d4d4d0000000001\"\nmeter_title = \"4D4D4D0000000001\"\n"),
            "client_title and meter_title are the same",
        ),
        (format!("{GMAC}{KEYS}challenge_octets = 65\n"), "challenge_octets = 65 is not between 8 and 64"),
        (format!("{PASSWORD}challenge_octets = 16\n"), "there is no high level security"),
        (
            format!("{GMAC}{KEYS}ciphering = \"dedicated\"\n{}", policy("authenticated")),
            "a dedicated key that is not encrypted on its way is known to all",
        ),
        (format!("{GMAC}{KEYS}quirks.empty_title = true\n"), "needs to know whose title is missing"),
        (format!("{GMAC}{KEYS}counter_client = 1\n"), "client 1 is the one without security"),
        (format!("{GMAC}{KEYS}counter_object = \"0-0\"\n"), "counter_object: "),
        ("counter_client = 1\n".to_owned(), "counter_client is set, but there are no keys"),
        (
            "protocol = \"iec62056-21\"\nsecurity_suite = 0\n".to_owned(),
            "security_suite is a setting of protocols \"dlms-wrapper\", \"dlms-hdlc\"",
        ),
        (format!("protocol = \"iec62056-21\"\n{GMAC}"), "authentication is a setting of protocols"),
    ];
    for (text, expected) in cases {
        let error = secrets.meter(&text).err().unwrap_or_else(|| panic!("taken: {text}"));
        assert!(error.contains(expected), "{error:?} instead of {expected:?}");
    }
}

#[test]
fn a_pre_established_association_has_keys_or_nothing_and_no_proof() {
    use crate::config::metering::AssociationName;
    use protocols::dlms::client::Referencing;
    let secrets = Secrets::new();
    let known = "association = \"pre-established\"\n";
    let title = "meter_title = \"4d4d4d0000bc614e\"\n";
    let meter = secrets.meter(&format!("{known}referencing = \"short-names\"\n")).unwrap();
    assert_eq!((meter.association, meter.referencing), (AssociationName::PreEstablished, Referencing::ShortNames));
    let keyed = secrets.meter(&format!("{known}{KEYS}{title}")).unwrap();
    assert!(matches!(&keyed.security, SecuritySettings { proof: Proof::None, cipher: Some(_), .. }));
    for (text, expected) in [
        (format!("{known}{PASSWORD}"), "nobody proves anything"),
        (format!("{known}{GMAC}{KEYS}{title}"), "nobody proves anything"),
        (format!("{known}quirks = {{ no_release = true }}\n"), "of associations that are asked for"),
        (format!("{known}{KEYS}"), "needs the meter's title"),
        (format!("{known}{KEYS}{title}ciphering = \"dedicated\"\n"), "brings a dedicated key"),
        (format!("{KEYS}{title}"), "who ciphers has to authenticate"),
        ("protocol = \"mbus\"\nreferencing = \"short-names\"\n".to_owned(), "referencing is a setting of protocols"),
        (format!("protocol = \"iec62056-21\"\n{known}"), "association is a setting of protocols"),
    ] {
        let error = secrets.meter(&text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn every_mechanism_and_suite_can_be_set() {
    let secrets = Secrets::new();
    let mechanisms = [
        ("manufacturer", Mechanism::HighManufacturer),
        ("md5", Mechanism::HighMd5),
        ("sha1", Mechanism::HighSha1),
        ("sha256", Mechanism::HighSha256),
    ];
    for (name, mechanism) in mechanisms {
        let meter = secrets.meter(&format!("authentication = {name:?}\n{PASSWORD}{KEYS}")).unwrap();
        let Proof::High { how, .. } = &meter.security.proof else { panic!("{:?}", meter.security) };
        assert_eq!(how.mechanism(), mechanism);
    }
    let long = "encryption_key_file = \"@e32\"\nauthentication_key_file = \"@e32\"\nsecurity_suite = 2\n";
    let meter = secrets.meter(&format!("{GMAC}{long}")).unwrap();
    assert_eq!(meter.security.cipher.as_ref().unwrap().config.suite, SecuritySuite::Suite2);
}

impl Secrets {
    /// Files with pairs of both curves, one of them the meter's: `s` of signatures, `d` of agreements, with the suite.
    fn with_pairs(self) -> Self {
        let hex = |octets: &[u8]| octets.iter().fold(String::new(), |text, octet| format!("{text}{octet:02x}"));
        for (suite, len) in [(1, 32), (2, 48)] {
            self.write(&format!("s{suite}"), &"07".repeat(len));
            self.write(&format!("d{suite}"), &"08".repeat(len));
            let signing = SigningKey::from_octets(&vec![9; len]).unwrap().verifying_key();
            let agreement = AgreementKey::from_octets(&vec![10; len]).unwrap().public_key();
            self.write(&format!("meter-s{suite}"), &hex(&signing.to_octets()));
            self.write(&format!("meter-d{suite}"), &hex(&agreement.to_octets()));
        }
        self
    }
}

const SIGNATURES: &str = "signing_key_file = \"@s1\"\nmeter_public_key_file = \"@meter-s1\"\n";
const AGREEMENTS: &str = "agreement_key_file = \"@d1\"\nmeter_agreement_key_file = \"@meter-d1\"\n";

#[test]
fn keys_that_general_ciphering_brings_and_signatures_can_be_set() {
    let secrets = Secrets::new().with_pairs();
    let config = |text: &str| secrets.meter(&format!("{GMAC}{text}")).unwrap().security.cipher.clone().unwrap().config;
    let named = config(&format!("{KEYS}ciphering = \"identified\"\n"));
    assert_eq!(named.wrapping, Wrapping::Ciphering(KeyTransport::Identified));
    let wrapped = config(&format!("{KEYS}ciphering = \"wrapped\"\nkey_encrypting_key_file = \"@e16\"\n"));
    assert_eq!(wrapped.wrapping, Wrapping::Ciphering(KeyTransport::Wrapped));
    assert_eq!(wrapped.transport.key_encrypting, Some(Key::from([0x1a; 16])));
    // Each is drawn for an association, and none is kept.
    assert!(wrapped.transport.wrapped.is_none() && wrapped.transport.ephemeral.is_none());
    let long = "encryption_key_file = \"@e32\"\nauthentication_key_file = \"@e32\"\n";
    for (suite, keys) in [(1, KEYS), (2, long)] {
        let keys = format!("{keys}security_suite = {suite}\n");
        let [signatures, agreements] = [SIGNATURES, AGREEMENTS].map(|text| text.replace("1\"", &format!("{suite}\"")));
        let one_pass = config(&format!("{keys}{signatures}{agreements}ciphering = \"one-pass\"\n"));
        assert_eq!((one_pass.wrapping, one_pass.signing), (Wrapping::Ciphering(KeyTransport::OnePass), None));
        assert!(one_pass.transport.signing.is_some() && one_pass.transport.peer_signing.is_some());
        assert!(one_pass.transport.agreement_fingerprint().is_some());
        let fixed = config(&format!("{keys}{agreements}ciphering = \"static-unified\"\n"));
        assert_eq!(fixed.wrapping, Wrapping::Ciphering(KeyTransport::StaticUnified));
        assert_eq!(fixed.transport.agreement_fingerprint(), one_pass.transport.agreement_fingerprint());
        for (name, place) in [("inside", Signing::Inside), ("outside", Signing::Outside)] {
            let signed = config(&format!("{keys}{signatures}signing = {name:?}\n"));
            assert_eq!((signed.wrapping, signed.signing), (Wrapping::Service, Some(place)));
        }
    }
    let quirky = format!(
        "{KEYS}security_suite = 1\n{AGREEMENTS}ciphering = \"static-unified\"\nquirks.algorithms_of_edition_8 = true\n"
    );
    assert!(config(&quirky).quirks.algorithms_of_edition_8);
    // What a meter is known to sign is settled before the first word of it.
    let signed = secrets.meter(&format!("{GMAC}{KEYS}security_suite = 1\n{SIGNATURES}signing = \"inside\"\n")).unwrap();
    let unsigned = secrets.meter(&format!("{GMAC}{KEYS}security_suite = 1\n")).unwrap();
    assert_ne!(signed.security, unsigned.security);
}

/// Control, seen to fail: leave the check of either suite 0 out.
#[test]
fn keys_that_nothing_is_done_with_and_those_that_are_missing_are_refused() {
    let secrets = Secrets::new().with_pairs();
    let suite = "security_suite = 1\n";
    let ciphering = |name: &str| format!("ciphering = {name:?}\n");
    for (text, expected) in [
        (ciphering("wrapped"), "needs a key to wrap others under\nhint: set key_encrypting_key_file"),
        (format!("{}{AGREEMENTS}", ciphering("one-pass")), "suite 0 has no signatures\nhint: set security_suite = 1"),
        (format!("{}{AGREEMENTS}", ciphering("static-unified")), "suite 0 agrees on no keys\nhint: set security_suite"),
        (format!("{SIGNATURES}signing = \"inside\"\n"), "security suite 0 has no signatures"),
        (
            format!("{suite}{}{AGREEMENTS}", ciphering("one-pass")),
            "\"one-pass\" needs our private key and the meter's public one\nhint: set signing_key_file and meter_public",
        ),
        (
            format!("{suite}{}{SIGNATURES}", ciphering("one-pass")),
            "\"one-pass\" needs our private key and the meter's public one\nhint: set agreement_key_file and meter_agree",
        ),
        (format!("{suite}signing = \"outside\"\n"), "signing needs our private key"),
        (format!("{suite}{AGREEMENTS}"), "a key of agreements is set, and nothing is agreed on\nhint: set ciphering"),
        (format!("{suite}{SIGNATURES}"), "a key of signatures is set, and nothing is signed"),
        (
            format!("{suite}{}{AGREEMENTS}", ciphering("static-unified")).replace("@meter-d1", "@d1"),
            "it holds 64 digits\nhint: 128 hexadecimal digits",
        ),
        (
            format!("{suite}{}{AGREEMENTS}", ciphering("static-unified")).replace("@d1", "@zero"),
            "agreement_key_file: the octets are no key of their curve\nhint: is it a key of the suite's curve",
        ),
        ("signing = \"around\"\n".to_owned(), "unknown variant `around`"),
    ] {
        secrets.write("zero", &"00".repeat(32));
        let error = secrets.meter(&format!("{GMAC}{KEYS}{text}")).err().unwrap_or_else(|| panic!("taken: {text}"));
        assert!(error.contains(expected), "{error:?} instead of {expected:?}");
        assert!(!error.contains("0707") && !error.contains("0808") && !error.contains("0000"), "{error}");
    }
    let plain = format!("{GMAC}{KEYS}{suite}security_policy = \"none\"\n");
    for text in [
        format!("{plain}{SIGNATURES}signing = \"inside\"\n"),
        format!("{plain}{AGREEMENTS}{}", ciphering("static-unified")),
    ] {
        let error = secrets.meter(&text).unwrap_err();
        assert!(error.contains("without ciphering nothing is signed, and no key is brought\nhint: set enc"), "{error}");
    }
    for key in ["key_encrypting_key_file = \"@e16\"\n", "agreement_key_file = \"@d1\"\n", "signing = \"inside\"\n"] {
        let error = secrets.meter(&format!("{PASSWORD}{key}")).unwrap_err();
        assert!(error.contains("is set, but there are no keys"), "{error}");
        let error = secrets.meter(&format!("protocol = \"iec62056-21\"\n{key}")).unwrap_err();
        assert!(error.contains("is a setting of protocols"), "{error}");
    }
}

/// Control, seen to fail: leave the comparison of titles out.
#[test]
fn keys_of_a_meter_may_be_given_as_certificates() {
    use super::certificate::tests::{Authority, of_meter};
    use rcgen::{KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384};
    let secrets = Secrets::new().with_pairs();
    let algorithm = &PKCS_ECDSA_P256_SHA256;
    let authority = Authority::new("Root", algorithm, true);
    let (signs, agrees) = (|| KeyUsagePurpose::DigitalSignature, || KeyUsagePurpose::KeyAgreement);
    let (name, other) = ("4D4D4D0000000001", "4D4D4D0000000002");
    let (_, pem, _) = authority.sign(&of_meter(name, signs()), algorithm);
    let (der, _, point) = authority.sign(&of_meter(name, agrees()), algorithm);
    let long = authority.sign(&of_meter(name, agrees()), &PKCS_ECDSA_P384_SHA384).1;
    secrets.write("signs.pem", &pem);
    secrets.write("of-other.pem", &authority.sign(&of_meter(other, agrees()), algorithm).1);
    secrets.write("long.pem", &long);
    secrets.write("ca.pem", &authority.pem);
    secrets.write("no-ca.pem", &Authority::new("Root", algorithm, true).pem);
    std::fs::write(secrets.0.path().join("agrees.der"), der).unwrap();
    let text = format!(
        "{GMAC}{KEYS}security_suite = 1\nciphering = \"one-pass\"\nsigning_key_file = \"@s1\"\nagreement_key_file = \"@d1\"\n\
         meter_public_key_file = \"@signs.pem\"\nmeter_agreement_key_file = \"@agrees.der\"\nmeter_ca_file = \"@ca.pem\"\n"
    );
    let config = secrets.meter(&text).unwrap().security.cipher.as_ref().unwrap().config.clone();
    assert_eq!(config.peer, Some(SystemTitle::from_hex(name).unwrap()));
    assert_eq!(config.transport.peer_agreement.unwrap().to_octets(), point);
    assert!(secrets.meter(&format!("{text}meter_title = {name:?}\n")).is_ok());
    for (before, after, expected) in [
        ("meter_ca_file = \"@ca.pem\"\n", "", "meter_public_key_file is a certificate, and nobody is known\u{20}"),
        (
            "@ca.pem",
            "@no-ca.pem",
            "meter_ca_file has no authority \"CN=Root\" that signed it\nhint: add the certificate",
        ),
        ("@agrees.der", "@of-other.pem", "and the other certificate of MMM 4d4d4d0000000001\nhint: both certificates"),
        ("@agrees.der", "@signs.pem", "its key is not for agreements\nhint: a meter has a certificate for signatures"),
        (
            "@agrees.der",
            "@long.pem",
            "meter_agreement_key_file: the certificate's key is of another curve than the suite",
        ),
        ("@agrees.der", "@absent.der", "cannot read "),
        ("@signs.pem", "@meter-s2", "it holds 192 digits"),
    ] {
        let error = secrets.meter(&text.replacen(before, after, 1)).err().unwrap_or_else(|| panic!("taken: {after}"));
        assert!(error.contains(expected), "{error:?} instead of {expected:?}");
    }
    let error = secrets.meter(&format!("{text}meter_title = {other:?}\n")).unwrap_err();
    assert!(
        error.contains("meter_title is MMM 4d4d4d0000000002, and the certificate is of MMM 4d4d4d00000000"),
        "{error}"
    );
    let unused = format!("{GMAC}{KEYS}meter_ca_file = \"@ca.pem\"\n");
    assert!(secrets.meter(&unused).unwrap_err().contains("meter_ca_file is set, and there is no certificate"));
}

/// Control, seen to fail: leave `next_key` out.
#[test]
fn a_key_of_a_change_that_was_cut_short_stands_beside_the_one_that_is_named() {
    let secrets = Secrets::new();
    secrets.write("kek", &"4d".repeat(16));
    let text = format!("{GMAC}{KEYS}key_encrypting_key_file = \"@kek\"\n");
    let before = secrets.meter(&text).unwrap();
    for (file, which) in
        [("e16", GlobalKey::UnicastEncryption), ("a16", GlobalKey::Authentication), ("kek", GlobalKey::KeyEncrypting)]
    {
        let beside = format!("{file}.next");
        secrets.write(&beside, &"5e".repeat(16));
        let meter = secrets.meter(&text).unwrap();
        assert_ne!(before.security, meter.security);
        let cipher = meter.security.cipher.as_ref().unwrap();
        let next = cipher.next.as_ref().unwrap();
        assert_eq!((next.which, &next.key), (which, &Key::from([0x5e; 16])));
        let of = |config: &CipheredConfig| {
            [config.keys.unicast.clone(), config.keys.authentication.clone(), config.transport.key_encrypting.clone()]
        };
        let named = [0x1a, 0x2b, 0x4d].map(|octet| Some(Key::from([octet; 16])));
        assert_eq!(of(cipher.config(false)), named);
        let changed: Vec<usize> = (0..3).filter(|place| of(cipher.config(true))[*place] != named[*place]).collect();
        let place = [0, 3, 1, 2][usize::from(which.octet())];
        assert_eq!(changed, [place]);
        assert!(!format!("{meter:?}").contains("5e5e"));
        std::fs::remove_file(secrets.0.path().join(beside)).unwrap();
    }
    secrets.write("e16.next", &"5e".repeat(16));
    secrets.write("kek.next", &"5f".repeat(16));
    let error = secrets.meter(&text).unwrap_err();
    assert!(
        error.contains("a global unicast encryption and a key-encrypting key are both about to change\nhint: "),
        "{error}"
    );
    secrets.write("kek.next", "5f");
    let error = secrets.meter(&text).unwrap_err();
    assert!(error.contains("key_encrypting_key_file ") && error.contains("kek.next: it holds 2 digits"), "{error}");
}

#[test]
fn settings_compare_by_their_secrets_and_never_show_them() {
    let secrets = Secrets::new();
    let text = format!("authentication = \"sha256\"\n{PASSWORD}{KEYS}");
    let before = secrets.meter(&text).unwrap();
    assert_eq!(before.security, secrets.meter(&text).unwrap().security);
    let shown = format!("{before:?}");
    for secret in ["12345678", "1a1a", "26, 26", "2b2b", &before.security.hash.to_string()] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    for (name, digits, original) in [("password", "87654321", "12345678"), ("a16", &"2c".repeat(16), &"2b".repeat(16))]
    {
        secrets.write(name, digits);
        assert_ne!(before.security, secrets.meter(&text).unwrap().security, "{name}");
        secrets.write(name, original);
    }
}
