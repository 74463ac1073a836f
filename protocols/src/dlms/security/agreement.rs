//! Key agreement of suites 1 and 2: ECDH on P-256 and P-384, and the keys that are derived from what both sides then know.

use std::fmt;

use p256::elliptic_curve::point::AffineCoordinates as _;
use sha2::{Digest, Sha256, Sha384};
use zeroize::Zeroizing;

use super::curve::{OnCurve, Point};
use super::secret::octets_from_hex;
use super::{CurveKeyError, Key, KeyError, ProtectionError, SecuritySuite, SystemTitle};

/// The private half of a pair for agreements, static or drawn for one: not shown by `Debug`, wiped when dropped.
#[derive(Clone)]
pub struct AgreementKey(Private);

type Private = OnCurve<Box<p256::SecretKey>, Box<p384::SecretKey>>;

/// The public half.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AgreementPublicKey(Point);

/// What both sides know and nobody else: Z, the x-coordinate of the common point.
pub(super) struct SharedSecret(Zeroizing<Vec<u8>>);

impl AgreementKey {
    /// 32 octets for P-256, 48 for P-384.
    pub fn from_octets(octets: &[u8]) -> Result<Self, CurveKeyError> {
        let private = match octets.len() {
            32 => p256::SecretKey::from_slice(octets).map(|key| Private::P256(Box::new(key))),
            48 => p384::SecretKey::from_slice(octets).map(|key| Private::P384(Box::new(key))),
            len => return Err(CurveKeyError::Length { len }),
        };
        private.map(Self).map_err(|_| CurveKeyError::NotOnCurve)
    }

    /// The same in hexadecimal digits, blanks around them allowed.
    pub fn from_hex(text: &str) -> Result<Self, CurveKeyError> {
        let octets: Zeroizing<Vec<u8>> = octets_from_hex(text).ok_or(KeyError::Digits)?;
        Self::from_octets(&octets)
    }

    pub fn public_key(&self) -> AgreementPublicKey {
        AgreementPublicKey(match &self.0 {
            Private::P256(key) => Point::P256(key.public_key()),
            Private::P384(key) => Point::P384(key.public_key()),
        })
    }

    /// The key on which client and server agree by an ephemeral key of each, C(2e, 0s). The client is party U.
    pub fn agree_on(
        &self,
        theirs: &AgreementPublicKey,
        use_of_key: UseOfKey,
        suite: SecuritySuite,
        [client, server]: [SystemTitle; 2],
    ) -> Result<Key, ProtectionError> {
        let derivation = Derivation { use_of_key, party_u: client, nonce_u: &[], party_v: server, edition_8: false };
        let secret = self.agree(theirs).ok_or(ProtectionError::Agreement)?;
        derivation.key(suite, &secret).ok_or(ProtectionError::Agreement)
    }

    pub(super) const fn is_of(&self, suite: SecuritySuite) -> bool {
        self.0.is_of(suite)
    }

    /// ECC CDH (NIST SP 800-56A, 5.7.1.2); the cofactor of both curves is 1. `None` for keys of two curves.
    pub(super) fn agree(&self, peer: &AgreementPublicKey) -> Option<SharedSecret> {
        let octets = match (&self.0, &peer.0) {
            (Private::P256(ours), Point::P256(theirs)) => {
                let point = theirs.to_projective() * *ours.to_nonzero_scalar();
                point.to_affine().x().to_vec()
            }
            (Private::P384(ours), Point::P384(theirs)) => {
                let point = theirs.to_projective() * *ours.to_nonzero_scalar();
                point.to_affine().x().to_vec()
            }
            _ => return None,
        };
        Some(SharedSecret(Zeroizing::new(octets)))
    }
}

impl AgreementPublicKey {
    /// x and y of the point, 64 octets for P-256, 96 for P-384.
    pub fn from_octets(octets: &[u8]) -> Result<Self, CurveKeyError> {
        Point::from_octets(octets).map(Self)
    }

    /// x and y, as [`Self::from_octets`] takes them.
    pub fn to_octets(&self) -> Vec<u8> {
        self.0.to_octets()
    }

    pub(super) const fn is_of(&self, suite: SecuritySuite) -> bool {
        self.0.is_of(suite)
    }
}

/// What a derived key is for, and between whom: OtherInfo of the key derivation (IEC 62056-5-3:2023, annex I).
#[derive(Debug, Clone, Copy)]
pub(super) struct Derivation<'a> {
    pub(super) use_of_key: UseOfKey,
    pub(super) party_u: SystemTitle,
    /// Party U's nonce with its length, where neither side has an ephemeral key.
    pub(super) nonce_u: &'a [u8],
    pub(super) party_v: SystemTitle,
    /// [`SecurityQuirks::algorithms_of_edition_8`](super::SecurityQuirks::algorithms_of_edition_8).
    pub(super) edition_8: bool,
}

/// What a derived key is used with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UseOfKey {
    /// AES-GCM.
    Ciphering,
    /// AES key wrap.
    Wrapping,
}

impl Derivation<'_> {
    /// `None` in suite 0, which derives no keys.
    pub(super) fn key(&self, suite: SecuritySuite, secret: &SharedSecret) -> Option<Key> {
        let [first, second] = [&self.party_u.0, &self.party_v.0];
        derive(suite, &secret.0, &[&self.algorithm(suite), first, self.nonce_u, second])
    }

    /// 2.16.756.5.8.3.x as the content of an object identifier behind its tag octet: 0 and 1 AES-GCM, 2 and 3 AES key wrap.
    fn algorithm(&self, suite: SecuritySuite) -> [u8; 7] {
        let first = if self.use_of_key == UseOfKey::Ciphering { 0 } else { 2 };
        let arc = if self.edition_8 { 0x06 } else { 0x05 };
        [0x60, 0x85, 0x74, arc, 0x08, 0x03, first + u8::from(suite == SecuritySuite::Suite2)]
    }
}

/// The concatenation key derivation function of NIST SP 800-56A, 5.8.1. No key is longer than one hash.
fn derive(suite: SecuritySuite, secret: &[u8], other_info: &[&[u8]]) -> Option<Key> {
    const COUNTER: [u8; 4] = 1u32.to_be_bytes();
    let hash = match suite {
        SecuritySuite::Suite0 => return None,
        SecuritySuite::Suite1 => hashed::<Sha256>(&COUNTER, secret, other_info),
        SecuritySuite::Suite2 => hashed::<Sha384>(&COUNTER, secret, other_info),
    };
    hash.get(..suite.key_bits() / 8).and_then(|octets| Key::from_octets(octets).ok())
}

fn hashed<H: Digest>(counter: &[u8], secret: &[u8], other_info: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let hash = other_info.iter().fold(H::new().chain_update(counter).chain_update(secret), H::chain_update);
    Zeroizing::new(hash.finalize().to_vec())
}

/// Octets of a key of the suite's curve that a peer sent.
pub(super) fn public_key(suite: SecuritySuite, octets: &[u8]) -> Result<AgreementPublicKey, ProtectionError> {
    let key = AgreementPublicKey::from_octets(octets).map_err(|_| ProtectionError::Agreement)?;
    if key.is_of(suite) { Ok(key) } else { Err(ProtectionError::Agreement) }
}

impl fmt::Debug for AgreementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.name(f, "AgreementKey")
    }
}

impl fmt::Debug for AgreementPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.name(f, "AgreementPublicKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlms::security::hex;

    const CLIENT: SystemTitle = SystemTitle(*b"MMM\x00\x00\xbcaN");
    const SERVER: SystemTitle = SystemTitle(*b"MMM\x00\x00\x00\x00\x01");

    /// NIST CAVP, KAS ECC CDH primitive, count 0 of P-256 and P-384: our private key, their x and y, the secret.
    const AGREEMENTS: [[&str; 3]; 2] = [
        [
            "7d7dc5f71eb29ddaf80d6214632eeae03d9058af1fb6d22ed80badb62bc1a534",
            "700c48f77f56584c5cc632ca65640db91b6bacce3a4df6b42ce7cc838833d287
             db71e509e3fd9b060ddb20ba5c51dcc5948d46fbf640dfe0441782cab85fa4ac",
            "46fc62106420ff012e54a434fbdd2d25ccc5852060561e68040dd7778997bd7b",
        ],
        [
            "3cc3122a68f0d95027ad38c067916ba0eb8c38894d22e1b15618b6818a661774ad463b205da88cf699ab4d43c9cf98a1",
            "a7c76b970c3b5fe8b05d2838ae04ab47697b9eaf52e764592efda27fe7513272734466b400091adbf2d68c58e0c50066
             ac68f19f2e1cb879aed43a9969b91a0839c4c38a49749b661efedf243451915ed0905a32b060992b468c64766fc8437a",
            "5f9d29dc5e31a163060356213669c8ce132e22f57c9a04f40ba7fcead493b457e5621e766c40a2e3d4d6a04b25e533f1",
        ],
    ];

    /// DLMS UA 1000-2 ed. 8, annex C.2: the client's ephemeral key and the server's static one, as the tests of EnergyICT's head-end
    /// print them (`KeyAgreementImplTest`).
    const EPHEMERAL: &str = "47DAB03842E5B6E74828EF4F449B378D7DD1A5DAE1FFCA5AE0B0BE0AD18EC57E";
    const STATIC_PUBLIC: &str = "A653565B0E06070BAE9FBE140A5D2156812AEE2DD525053E3EFC850BF13BFDFF
         CB240BC7B77BFF5883344E7275908D2287BEFA3725017295A096989D2338290B";
    /// Annex C.3: the client's static key.
    const STATIC_CLIENT: &str = "A51C16FF5C498FCC89323D4A9267CD71BF81FD6F6A891CD240DA7F3D6F283E65";

    fn secret(private: &str, public: &str) -> SharedSecret {
        let public = AgreementPublicKey::from_octets(&hex(public)).unwrap();
        AgreementKey::from_octets(&hex(private)).unwrap().agree(&public).unwrap()
    }

    fn derivation(nonce_u: &[u8]) -> Derivation<'_> {
        let use_of_key = UseOfKey::Ciphering;
        Derivation { use_of_key, party_u: CLIENT, nonce_u, party_v: SERVER, edition_8: false }
    }

    #[test]
    fn the_vectors_of_nist_are_met() {
        for [private, public, z] in AGREEMENTS {
            assert_eq!(*secret(private, public).0, hex(z));
        }
    }

    /// RFC 7518, appendix C, which is this function with fields of its own.
    #[test]
    fn the_key_derivation_of_nist_is_met_by_an_example_of_an_rfc() {
        let z = hex("9e56d91d817135d372834283bf84269cfb316ea3da806a48f6daa7798cfe90c4");
        let [algorithm, alice, bob] = [&b"\0\0\0\x07A128GCM"[..], b"\0\0\0\x05Alice", b"\0\0\0\x03Bob"];
        let key = derive(SecuritySuite::Suite1, &z, &[algorithm, alice, bob, &[0, 0, 0, 128]]);
        assert_eq!(key, Some(Key::from_hex("56aa8deaf8236d205c2228cd71a7101a").unwrap()));
        assert_eq!(derive(SecuritySuite::Suite0, &z, &[]), None);
        assert_eq!(derive(SecuritySuite::Suite2, &z, &[]).unwrap().bits(), 256);
    }

    /// The secret of annex C.2, and its key by either algorithm id: of spodes-rs and Gurux, and of EnergyICT.
    #[test]
    fn the_one_pass_example_of_the_green_book_is_met_by_either_edition() {
        let z = secret(EPHEMERAL, STATIC_PUBLIC);
        assert_eq!(*z.0, hex("0D4385BA0DD756CBCAB9887EB538396EE8F090A14C1079B4359F115B977F4615"));
        for (edition_8, key) in
            [(false, "59A71FD81C929A86A99438DA17A66C05"), (true, "8CD08FF02EAC71712DE8449DC8331833")]
        {
            let derived = Derivation { edition_8, ..derivation(&[]) }.key(SecuritySuite::Suite1, &z);
            assert_eq!(derived, Some(Key::from_hex(key).unwrap()));
        }
    }

    /// The key of annex C.3, which Gurux's tests print (`GXSymmetricTest`).
    /// Annex C.1: the server's ephemeral private key and the client's public one, and the secret, of `KeyAgreementImplTest`; the key by
    /// the algorithm id with which the other examples are met.
    #[test]
    fn the_ephemeral_example_of_the_green_book_is_met() {
        let ours = AgreementKey::from_hex("34A8C23A34DBB519D09B245754C85A6CFE05D14A063EFA5AA41545AA8241EFAE").unwrap();
        let theirs = "2914D60E10AB705F62ED6CC349D7CB99B9AB3F3978E59278C7AF595B3AF98794
             1372DAB6D5AF1FA867E134167E6F23DE664A6693E05F43414611058D1B48F894";
        let theirs = AgreementPublicKey::from_octets(&hex(theirs)).unwrap();
        let secret = ours.agree(&theirs).unwrap();
        assert_eq!(*secret.0, hex("C1CF8FE7891AEF3617D7190795E61FE6C24EFC3CCA2E08469BAD1A225CE6EA08"));
        let of_edition_8 = Derivation { edition_8: true, ..derivation(&[]) }.key(SecuritySuite::Suite1, &secret);
        assert_eq!(of_edition_8, Some(Key::from_hex("E025CA6F9EE8D2B40F993739D44CFBC0").unwrap()));
        let agree = |use_of_key| ours.agree_on(&theirs, use_of_key, SecuritySuite::Suite1, [CLIENT, SERVER]).unwrap();
        assert_eq!(agree(UseOfKey::Ciphering), Key::from_hex("C5F4512846EDE51CFB8CCF59F08A694E").unwrap());
        assert_ne!(agree(UseOfKey::Wrapping), agree(UseOfKey::Ciphering));
    }

    #[test]
    fn the_static_example_of_the_green_book_is_met_with_its_nonce() {
        let z = secret(STATIC_CLIENT, STATIC_PUBLIC);
        let derived = derivation(&hex("08 0102030405060708")).key(SecuritySuite::Suite1, &z);
        assert_eq!(derived, Some(Key::from_hex("56C46B57DF675515C31025455822514A").unwrap()));
        assert_ne!(derived, derivation(&hex("08 0102030405060709")).key(SecuritySuite::Suite1, &z));
    }

    #[test]
    fn what_is_no_key_and_what_is_of_another_curve_is_refused() {
        assert_eq!(AgreementKey::from_octets(&[0; 32]).unwrap_err(), CurveKeyError::NotOnCurve);
        assert_eq!(AgreementKey::from_octets(&[1; 33]).unwrap_err(), CurveKeyError::Length { len: 33 });
        assert_eq!(AgreementPublicKey::from_octets(&[1; 64]), Err(CurveKeyError::NotOnCurve));
        assert_eq!(AgreementPublicKey::from_octets(&[1; 65]), Err(CurveKeyError::Length { len: 65 }));
        let [short, long] = [32, 48].map(|len| AgreementKey::from_octets(&vec![7; len]).unwrap());
        assert!(short.agree(&long.public_key()).is_none());
        let octets = long.public_key().to_octets();
        assert_eq!(AgreementPublicKey::from_octets(&octets), Ok(long.public_key()));
        assert_eq!(public_key(SecuritySuite::Suite1, &octets), Err(ProtectionError::Agreement));
        assert_eq!(public_key(SecuritySuite::Suite2, &octets), Ok(long.public_key()));
    }

    #[test]
    fn nothing_that_is_printed_shows_a_private_key() {
        assert_eq!(format!("{:?}", AgreementKey::from_octets(&[7; 32]).unwrap()), "AgreementKey(P-256)");
        assert_eq!(format!("{:?}", AgreementKey::from_octets(&[7; 48]).unwrap()), "AgreementKey(P-384)");
    }
}
