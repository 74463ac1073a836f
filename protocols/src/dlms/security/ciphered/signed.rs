//! Signatures of the APDUs of an association, inside of their ciphering or around it.

use super::{Ciphered, Side};
use crate::dlms::security::general::encode_header;
use crate::dlms::security::signing::{Signed, Signing, sign};
use crate::dlms::security::{ProtectionError, Purpose};

impl Ciphered {
    /// Where the signature of such an APDU is.
    pub(super) fn signing_of(&self, purpose: Purpose) -> Option<Signing> {
        self.config.signing.filter(|_| purpose != Purpose::Initiate)
    }

    /// What identifies an exchange: a server says it as its client did, and nobody says it twice on its own.
    pub(super) fn transaction_id(&self, counter: u32) -> Vec<u8> {
        match (self.side, &self.association.transaction_id) {
            (Side::Server, Some(of_request)) => of_request.clone(),
            _ => u64::from(counter).to_be_bytes().to_vec(),
        }
    }

    pub(super) fn signed(&self, transaction_id: &[u8], content: &[u8]) -> Result<Vec<u8>, ProtectionError> {
        let peer = self.association.peer.ok_or(ProtectionError::NoTitle)?;
        let header = encode_header(transaction_id, self.config.title, peer);
        Ok(sign(self.config.transport.signing()?, &header, content))
    }

    /// What the peer has signed, for us.
    pub(super) fn verified<'a>(&self, apdu: &'a [u8]) -> Result<(Signed<'a>, &'a [u8]), ProtectionError> {
        let signed = Signed::decode(apdu)?;
        self.sender(Some(signed.header.originator))?;
        signed.header.check_recipient(self.config.title, self.config.broadcast)?;
        let content = signed.verified(self.config.transport.peer_signing()?)?;
        Ok((signed, content))
    }
}
