//! Global keys on which client and server agree by an ephemeral key of each: ephemeral unified model, C(2e, 0s), of key_agreement.
//!
//! Each side sends its ephemeral public key and the signature of key-id and public key (DLMS UA 1000-2 ed. 8, annex C.1). Whoever hears no
//! answer does not know the key that the other side has from then on: a client that must not be shut out transfers keys instead
//! ([`KeyChange`](super::KeyChange)), which it knows before they leave.

use super::agreement::public_key;
use super::{
    AgreementKey, AgreementPublicKey, Key, ProtectionError, SecuritySuite, SigningKey, SystemTitle, UseOfKey,
    VerifyingKey,
};
use crate::cosem::security_setup::{GlobalKey, KeyData};

/// What both sides have to know of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GlobalAgreement {
    pub suite: SecuritySuite,
    pub client: SystemTitle,
    pub server: SystemTitle,
}

impl GlobalAgreement {
    /// What goes to the other side.
    pub fn offer(key: GlobalKey, ephemeral: &AgreementKey, signing: &SigningKey) -> KeyData {
        let public = ephemeral.public_key().to_octets();
        let signature = signing.sign(&signed(key, &public));
        KeyData { key, octets: [public, signature].concat() }
    }

    /// The key that follows from what came from there.
    pub fn conclude(
        &self,
        theirs: &KeyData,
        ephemeral: &AgreementKey,
        verifying: &VerifyingKey,
    ) -> Result<Key, ProtectionError> {
        let (public, signature) = theirs.octets.split_at(theirs.octets.len() / 2);
        let peer: AgreementPublicKey = public_key(self.suite, public)?;
        verifying.verify(&signed(theirs.key, public), signature).map_err(|_| ProtectionError::Forged)?;
        let is_master = theirs.key == GlobalKey::KeyEncrypting;
        let use_of_key = if is_master { UseOfKey::Wrapping } else { UseOfKey::Ciphering };
        ephemeral.agree_on(&peer, use_of_key, self.suite, [self.client, self.server])
    }
}

fn signed(key: GlobalKey, public: &[u8]) -> Vec<u8> {
    [&[key.octet()], public].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlms::security::hex;

    /// DLMS UA 1000-2 ed. 8, table C.1: the client's signing keys, its ephemeral public key and the signature, as EnergyICT's head-end
    /// prints them (`ECDSASignatureImplTest`).
    const PRIVATE: &str = "418073C239FA6125011DE4D6CD2E645780289F761BB21BFB0835CB5585E8B373";
    const PUBLIC: &str = "BAAFFDE06A8CB1C9DAE8D94023C601DBBB249254BA22EDD827E820BCA2BCC643
         62FBB83D86A82B87BB8B7161D2AAB5521911A946B97A284A90F7785CD9047D25";
    const EPHEMERAL: &str = "2914D60E10AB705F62ED6CC349D7CB99B9AB3F3978E59278C7AF595B3AF98794
         1372DAB6D5AF1FA867E134167E6F23DE664A6693E05F43414611058D1B48F894";
    const SIGNATURE: &str = "06F0607702AA0E2435A183E2F6B1ECD19629712E389A213610C03F77B2590860
         EA840AF5C3FA1F2BCDF055D4744E9A01CE9A0E55026BCAA4EEBEB764CED64BB3";
    const SERVER_EPHEMERAL: &str = "34A8C23A34DBB519D09B245754C85A6CFE05D14A063EFA5AA41545AA8241EFAE";

    fn agreement(suite: SecuritySuite) -> GlobalAgreement {
        let (client, server) = (SystemTitle(*b"MMM\x00\x00\xbcaN"), SystemTitle(*b"MMM\x00\x00\x00\x00\x01"));
        GlobalAgreement { suite, client, server }
    }

    #[test]
    fn the_offer_of_the_green_book_is_taken_and_no_other_key_id_with_it() {
        let verifying = VerifyingKey::from_octets(&hex(PUBLIC)).unwrap();
        assert_eq!(SigningKey::from_hex(PRIVATE).unwrap().verifying_key(), verifying);
        let ephemeral = AgreementKey::from_hex(SERVER_EPHEMERAL).unwrap();
        let octets = [hex(EPHEMERAL), hex(SIGNATURE)].concat();
        let conclude = |key| {
            let offered = KeyData { key, octets: octets.clone() };
            agreement(SecuritySuite::Suite1).conclude(&offered, &ephemeral, &verifying)
        };
        let agreed = Key::from_hex("C5F4512846EDE51CFB8CCF59F08A694E").unwrap();
        assert_eq!(conclude(GlobalKey::UnicastEncryption), Ok(agreed));
        assert_eq!(conclude(GlobalKey::Authentication), Err(ProtectionError::Forged));
    }

    #[test]
    fn both_sides_have_the_same_key_and_whoever_sits_between_is_noticed() {
        for (suite, len) in [(SecuritySuite::Suite1, 32), (SecuritySuite::Suite2, 48)] {
            let signing = |octet| SigningKey::from_octets(&vec![octet; len]).unwrap();
            let ephemeral = |octet| AgreementKey::from_octets(&vec![octet; len]).unwrap();
            for key in GlobalKey::ALL {
                let asked = GlobalAgreement::offer(key, &ephemeral(1), &signing(3));
                let answered = GlobalAgreement::offer(key, &ephemeral(2), &signing(4));
                let theirs = agreement(suite).conclude(&asked, &ephemeral(2), &signing(3).verifying_key()).unwrap();
                let ours = agreement(suite).conclude(&answered, &ephemeral(1), &signing(4).verifying_key()).unwrap();
                assert_eq!((&ours, ours.bits()), (&theirs, suite.key_bits()));
                let stranger = GlobalAgreement::offer(key, &ephemeral(5), &signing(6));
                let refused = agreement(suite).conclude(&stranger, &ephemeral(1), &signing(4).verifying_key());
                assert_eq!(refused, Err(ProtectionError::Forged));
            }
        }
        for len in [0, 1, 127, 129, 300] {
            let data = KeyData { key: GlobalKey::Authentication, octets: vec![4; len] };
            let ephemeral = AgreementKey::from_octets(&[1; 32]).unwrap();
            let verifying = SigningKey::from_octets(&[3; 32]).unwrap().verifying_key();
            let refused = agreement(SecuritySuite::Suite1).conclude(&data, &ephemeral, &verifying);
            assert_eq!(refused, Err(ProtectionError::Agreement));
        }
    }
}
