//! Certificates of meters (X.509, RFC 5280): the public key in one, and whose it is.
//!
//! A meter has one for signatures and one for agreements: the key usage says which. The common name of its subject is the system title, in
//! 16 hexadecimal digits. Who signed it has to be in the file of authorities; chains are of that one link, so the file holds sub-authorities
//! too. Only ECDSA on the curves of suites 1 and 2 is known. What was revoked, nobody here is told.

use protocols::dlms::security::{SystemTitle, VerifyingKey};
use protocols::metering::UtcMillis;
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyUse {
    Signature,
    Agreement,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Certified {
    pub(super) title: SystemTitle,
    /// x and y.
    pub(super) point: Vec<u8>,
    pub(super) validity: Validity,
}

/// When a certificate and who signed it are valid: both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Validity {
    pub from: UtcMillis,
    pub to: UtcMillis,
}

impl Validity {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let at = |seconds: i64| UtcMillis(seconds.saturating_mul(1_000));
        let validity = certificate.validity();
        Self { from: at(validity.not_before.timestamp()), to: at(validity.not_after.timestamp()) }
    }

    /// When both are.
    pub(super) fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }

    /// When either is, where they overlap.
    fn or(self, other: Self) -> Self {
        Self { from: self.from.min(other.from), to: self.to.max(other.to) }
    }

    pub fn check(self, now: UtcMillis) -> Result<(), ValidityError> {
        match now {
            now if now > self.to => Err(ValidityError::Expired { at: self.to }),
            now if now < self.from && now >= CLOCK_SET_SINCE => Err(ValidityError::Early { at: self.from }),
            _ => Ok(()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValidityError {
    #[error("a certificate of the meter, or of who signed it, expired at {at}: ask for a new one; is the clock right?")]
    Expired { at: UtcMillis },
    #[error("a certificate of the meter, or of who signed it, is not valid before {at}: is the clock right?")]
    Early { at: UtcMillis },
}

/// 2024-01-01. A clock before it was never set: it knows nothing of what is not valid yet.
const CLOCK_SET_SINCE: UtcMillis = UtcMillis(1_704_067_200_000);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CertificateError {
    #[error("it holds no certificate that can be read")]
    Malformed,
    #[error("it holds an extension that has to be understood, and is not: {oid}")]
    Critical { oid: String },
    #[error("its common name is no system title: {name:?}")]
    Title { name: String },
    #[error("its key is not for {wanted}")]
    Usage { wanted: &'static str },
    #[error("meter_ca_file has no authority {issuer:?} that signed it")]
    Foreign { issuer: String },
}

impl CertificateError {
    pub(super) const fn hint(&self) -> &'static str {
        match self {
            Self::Malformed => "a certificate in PEM or DER, or the hexadecimal digits of x and y",
            Self::Critical { .. } => "",
            Self::Title { .. } => "certificates of meters name 16 hexadecimal digits; is it one of an authority?",
            Self::Usage { .. } => "a meter has a certificate for signatures and another one for agreements",
            Self::Foreign { .. } => "add the certificate of its issuer to meter_ca_file, if the meter is yours",
        }
    }
}

/// The certificates in a file, in DER. `None`: it is none of certificates.
pub(super) fn certificates(octets: &[u8]) -> Option<Vec<Vec<u8>>> {
    match octets.trim_ascii_start() {
        text if text.starts_with(b"-----BEGIN") => {
            let parts = Pem::iter_from_buffer(octets).filter_map(Result::ok);
            Some(parts.filter(|part| part.label == "CERTIFICATE").map(|part| part.contents).collect())
        }
        // No digit has the highest bit of a long length.
        [0x30, length, ..] if *length >= 0x80 => Some(vec![octets.to_vec()]),
        _ => None,
    }
}

/// What the first of `ders` certifies; `authorities` are in DER, too.
pub(super) fn certified(
    ders: &[Vec<u8>],
    key_use: KeyUse,
    authorities: &[Vec<u8>],
) -> Result<Certified, CertificateError> {
    let certificate = ders.first().and_then(|der| parse(der)).ok_or(CertificateError::Malformed)?;
    let unknown = certificate.extensions().iter().find(|extension| {
        let is_known = !matches!(
            extension.parsed_extension(),
            ParsedExtension::UnsupportedExtension { .. } | ParsedExtension::ParseError { .. }
        );
        extension.critical && !is_known
    });
    if let Some(extension) = unknown {
        return Err(CertificateError::Critical { oid: extension.oid.to_id_string() });
    }
    let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default();
    let title = SystemTitle::from_hex(name).map_err(|_| CertificateError::Title { name: name.to_owned() })?;
    check_use(&certificate, key_use)?;
    let is_issuer = |authority: &&X509Certificate<'_>| {
        authority.subject().as_raw() == certificate.issuer().as_raw()
            && is_authority(authority)
            && signed(&certificate, authority).is_some()
    };
    let authorities = authorities.iter().filter_map(|der| parse(der)).collect::<Vec<_>>();
    let issuers = authorities.iter().filter(is_issuer).map(Validity::of);
    // Whoever renews his own keeps his key: one of his is valid as long as they overlap.
    let Some(issuer) = issuers.reduce(Validity::or) else {
        return Err(CertificateError::Foreign { issuer: certificate.issuer().to_string() });
    };
    let point = point(&certificate).ok_or(CertificateError::Malformed)?.to_vec();
    Ok(Certified { title, point, validity: Validity::of(&certificate).and(issuer) })
}

/// All of `der`.
fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    rest.is_empty().then_some(certificate)
}

fn check_use(certificate: &X509Certificate<'_>, key_use: KeyUse) -> Result<(), CertificateError> {
    let usage = certificate.key_usage().ok().flatten();
    let (wanted, is_for_it) = match key_use {
        KeyUse::Signature => ("signatures", usage.is_some_and(|usage| usage.value.digital_signature())),
        KeyUse::Agreement => ("agreements", usage.is_some_and(|usage| usage.value.key_agreement())),
    };
    if is_for_it { Ok(()) } else { Err(CertificateError::Usage { wanted }) }
}

/// Whether it may sign certificates.
fn is_authority(certificate: &X509Certificate<'_>) -> bool {
    let signs = certificate.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
    certificate.basic_constraints().ok().flatten().is_some_and(|constraints| constraints.value.ca) && signs
}

/// x and y of its key, which may be of another curve than they look like.
fn point<'c>(certificate: &'c X509Certificate<'_>) -> Option<&'c [u8]> {
    // The mark of an uncompressed point.
    certificate.public_key().subject_public_key.data.strip_prefix(&[0x04])
}

/// Whether this authority signed it.
fn signed(certificate: &X509Certificate<'_>, authority: &X509Certificate<'_>) -> Option<()> {
    let point = point(authority)?;
    let (algorithm, len) = match point.len() {
        64 => ("1.2.840.10045.4.3.2", 32),
        96 => ("1.2.840.10045.4.3.3", 48),
        _ => return None,
    };
    // What is signed names the algorithm, too.
    let is_named = certificate.signature_algorithm == certificate.tbs_certificate.signature;
    if !is_named || certificate.signature_algorithm.algorithm.to_id_string() != algorithm {
        return None;
    }
    let signature = r_and_s(&certificate.signature_value.data, len)?;
    VerifyingKey::from_octets(point).ok()?.verify(certificate.tbs_certificate.as_ref(), &signature).ok()
}

/// Both numbers of an ECDSA-Sig-Value (RFC 5480, appendix A) in `len` octets each.
fn r_and_s(der: &[u8], len: usize) -> Option<Vec<u8>> {
    let [0x30, length, numbers @ ..] = der else { return None };
    let (r, rest) = number(numbers, len)?;
    let (s, rest) = number(rest, len)?;
    (usize::from(*length) == numbers.len() && rest.is_empty()).then(|| [r, s].concat())
}

fn number(der: &[u8], len: usize) -> Option<(Vec<u8>, &[u8])> {
    let [0x02, length, rest @ ..] = der else { return None };
    let (octets, rest) = rest.split_at_checked((*length).into())?;
    // One that begins with a set bit has a zero before it.
    let octets = octets.strip_prefix(&[0]).unwrap_or(octets);
    let zeros = len.checked_sub(octets.len())?;
    Some(([vec![0; zeros].as_slice(), octets].concat(), rest))
}

#[cfg(test)]
pub(super) mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
        PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, SignatureAlgorithm, date_time_ymd,
    };

    use super::*;

    const NAME: &str = "4D4D4D0000000001";
    /// 2020 to 2099.
    const VALIDITY: Validity = Validity { from: UtcMillis(1_577_836_800_000), to: UtcMillis(4_070_908_800_000) };

    /// One that signs, and its certificate in DER.
    pub(in crate::config::security) struct Authority {
        issuer: Issuer<'static, KeyPair>,
        pub(in crate::config::security) der: Vec<u8>,
        pub(in crate::config::security) pem: String,
    }

    impl Authority {
        pub(in crate::config::security) fn new(
            name: &str,
            algorithm: &'static SignatureAlgorithm,
            is_ca: bool,
        ) -> Self {
            Self::make(name, algorithm, is_ca, |_| {})
        }

        fn make(
            name: &str,
            algorithm: &'static SignatureAlgorithm,
            is_ca: bool,
            limit: impl FnOnce(&mut CertificateParams),
        ) -> Self {
            Self::of_key(name, KeyPair::generate_for(algorithm).unwrap(), is_ca, limit)
        }

        fn of_key(name: &str, key: KeyPair, is_ca: bool, limit: impl FnOnce(&mut CertificateParams)) -> Self {
            let mut params = CertificateParams::default();
            limit(&mut params);
            params.distinguished_name.push(DnType::CommonName, name);
            if is_ca {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            }
            let certificate = params.self_signed(&key).unwrap();
            Self { der: certificate.der().to_vec(), pem: certificate.pem(), issuer: Issuer::new(params, key) }
        }

        /// A certificate in DER and in PEM, and x and y of its key.
        pub(in crate::config::security) fn sign(
            &self,
            params: &CertificateParams,
            algorithm: &'static SignatureAlgorithm,
        ) -> (Vec<u8>, String, Vec<u8>) {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let certificate = params.clone().signed_by(&key, &self.issuer).unwrap();
            (certificate.der().to_vec(), certificate.pem(), key.public_key_raw()[1..].to_vec())
        }
    }

    pub(in crate::config::security) fn of_meter(name: &str, usage: KeyUsagePurpose) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![usage];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2099, 1, 1));
        params
    }

    #[test]
    fn a_certificate_of_either_curve_tells_key_and_title() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384] {
            let authority = Authority::new("Root", algorithm, true);
            let other = Authority::new("Root", algorithm, true);
            for (usage, key_use) in [
                (KeyUsagePurpose::DigitalSignature, KeyUse::Signature),
                (KeyUsagePurpose::KeyAgreement, KeyUse::Agreement),
            ] {
                let (der, pem, point) = authority.sign(&of_meter(NAME, usage), algorithm);
                let title = SystemTitle::from_hex(NAME).unwrap();
                // Two authorities of one name, of which one has signed.
                let authorities = [other.der.clone(), authority.der.clone()];
                for file in [der, pem.into_bytes()] {
                    let found = certified(&certificates(&file).unwrap(), key_use, &authorities);
                    assert_eq!(found, Ok(Certified { title, point: point.clone(), validity: VALIDITY }));
                }
            }
        }
        assert_eq!(certificates(b"0807060504030201"), None);
        assert_eq!(certificates(b""), None);
    }

    /// Negative control: leave the signature or the constraints out.
    #[test]
    fn a_foreign_and_a_forged_certificate_are_refused() {
        let algorithm = &PKCS_ECDSA_P256_SHA256;
        let root = Authority::new("Root", algorithm, true);
        let meter = of_meter(NAME, KeyUsagePurpose::DigitalSignature);
        let check = |der: &[u8], authorities: &[&Authority]| {
            let authorities: Vec<_> = authorities.iter().map(|authority| authority.der.clone()).collect();
            certified(&[der.to_vec()], KeyUse::Signature, &authorities).unwrap_err()
        };
        let (der, ..) = root.sign(&meter, algorithm);
        let foreign = CertificateError::Foreign { issuer: "CN=Root".to_owned() };
        assert_eq!(check(&der, &[]), foreign);
        assert_eq!(check(&der, &[&Authority::new("Root", algorithm, true)]), foreign);
        assert_eq!(check(&der, &[&Authority::new("Other", algorithm, true)]), foreign);
        let no_authority = Authority::new("Root", algorithm, false);
        assert_eq!(check(&no_authority.sign(&meter, algorithm).0, &[&no_authority]), foreign);
        // Any octet that is altered of what is signed: it is another certificate, or none.
        for at in (4..der.len() - 100).step_by(5) {
            let mut altered = der.clone();
            altered[at] ^= 1;
            assert!(certified(&[altered], KeyUse::Signature, std::slice::from_ref(&root.der)).is_err(), "{at}");
        }
    }

    /// Negative controls: leave the issuer's validity out; either end of it.
    #[test]
    fn a_certificate_is_valid_as_long_as_it_and_its_issuer_are() {
        let algorithm = &PKCS_ECDSA_P256_SHA256;
        let root = Authority::make("Root", algorithm, true, |params| {
            (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2036, 1, 1));
        });
        let (der, ..) = root.sign(&of_meter(NAME, KeyUsagePurpose::DigitalSignature), algorithm);
        let validity =
            certified(std::slice::from_ref(&der), KeyUse::Signature, std::slice::from_ref(&root.der)).unwrap().validity;
        let [from, to] = [1_767_225_600_000, 2_082_758_400_000].map(UtcMillis);
        assert_eq!(validity, Validity { from, to });
        assert_eq!([from, to].map(|now| validity.check(now)), [Ok(()); 2]);
        assert_eq!(validity.check(from.plus_ms(-1)), Err(ValidityError::Early { at: from }));
        assert_eq!(validity.check(to.plus_ms(1)), Err(ValidityError::Expired { at: to }));
        assert_eq!(validity.check(UtcMillis(0)), Ok(()), "a clock that was never set keeps no meter from being read");
        // The authority has renewed its own ahead of time.
        let key = KeyPair::try_from(root.issuer.key().serialize_der()).unwrap();
        let renewed = Authority::of_key("Root", key, true, |params| {
            (params.not_before, params.not_after) = (date_time_ymd(2035, 1, 1), date_time_ymd(2046, 1, 1));
        });
        let both = certified(&[der], KeyUse::Signature, &[root.der, renewed.der]).unwrap().validity;
        assert_eq!(both, Validity { from, to: UtcMillis(2_398_377_600_000) });
    }

    #[test]
    fn a_certificate_of_something_else_is_refused_by_name() {
        let algorithm = &PKCS_ECDSA_P256_SHA256;
        let root = Authority::new("Root", algorithm, true);
        let signs = |name| of_meter(name, KeyUsagePurpose::DigitalSignature);
        let check = |params: &CertificateParams, key_use| {
            let (der, ..) = root.sign(params, algorithm);
            certified(&[der], key_use, std::slice::from_ref(&root.der)).unwrap_err()
        };
        let wanted = "agreements";
        assert_eq!(check(&signs(NAME), KeyUse::Agreement), CertificateError::Usage { wanted });
        let name = "meter 1".to_owned();
        assert_eq!(check(&signs("meter 1"), KeyUse::Signature), CertificateError::Title { name });
        let mut params = signs(NAME);
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions = vec![extension];
        let oid = "1.3.6.1.4.1.99999.1".to_owned();
        assert_eq!(check(&params, KeyUse::Signature), CertificateError::Critical { oid });
        let none = certified(&[vec![0x30, 0x82, 0, 1, 0]], KeyUse::Signature, &[]);
        assert_eq!(none, Err(CertificateError::Malformed));
        assert_eq!(certified(&[], KeyUse::Signature, &[]), Err(CertificateError::Malformed));
    }

    #[test]
    fn numbers_of_a_signature_are_padded_and_freed_of_their_sign() {
        let der = [0x30, 9, 2, 3, 0, 0x81, 2, 2, 2, 0x7f, 3];
        assert_eq!(r_and_s(&der, 3), Some(vec![0, 0x81, 2, 0, 0x7f, 3]));
        assert_eq!(r_and_s(&der, 1), None);
        for end in 0..der.len() {
            assert_eq!(r_and_s(&der[..end], 3), None);
        }
    }
}
