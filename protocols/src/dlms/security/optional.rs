//! Ciphering as far as there is any: for owners whose peers differ.

use super::{Ciphered, Key, Level, Plain, Protection, ProtectionError, Purpose, SystemTitle};
use crate::dlms::conformance::Conformance;

/// `None` is [`Plain`].
impl Protection for Option<Box<Ciphered>> {
    fn protect(&mut self, purpose: Purpose, apdu: Vec<u8>) -> Result<Vec<u8>, ProtectionError> {
        with(self.as_deref_mut(), |protection| protection.protect(purpose, apdu))
    }

    fn unprotect(&mut self, purpose: Purpose, apdu: Vec<u8>) -> Result<Vec<u8>, ProtectionError> {
        with(self.as_deref_mut(), |protection| protection.unprotect(purpose, apdu))
    }

    fn overhead(&self) -> usize {
        of(self.as_deref()).overhead()
    }

    fn ciphers(&self) -> bool {
        of(self.as_deref()).ciphers()
    }

    fn title(&self) -> Option<SystemTitle> {
        of(self.as_deref()).title()
    }

    fn peer(&self) -> Option<SystemTitle> {
        of(self.as_deref()).peer()
    }

    fn conformance(&self) -> Conformance {
        of(self.as_deref()).conformance()
    }

    fn begin(&mut self, ciphered: bool, minimum: Level) -> Result<(), ProtectionError> {
        with(self.as_deref_mut(), |protection| protection.begin(ciphered, minimum))
    }

    fn meet(&mut self, title: Option<&[u8]>) -> Result<(), ProtectionError> {
        with(self.as_deref_mut(), |protection| protection.meet(title))
    }

    fn agreed(&mut self, conformance: Conformance) {
        with(self.as_deref_mut(), |protection| protection.agreed(conformance));
    }

    fn offered_key(&self) -> Option<&Key> {
        self.as_ref()?.offered_key()
    }

    fn agree_on_key(&mut self, key: &[u8]) -> Result<(), ProtectionError> {
        with(self.as_deref_mut(), |protection| protection.agree_on_key(key))
    }

    fn end(&mut self) {
        with(self.as_deref_mut(), |protection| protection.end());
    }

    fn is_authenticated(&self) -> bool {
        of(self.as_deref()).is_authenticated()
    }

    fn prove(&mut self, challenge: &[u8]) -> Result<Vec<u8>, ProtectionError> {
        with(self.as_deref_mut(), |protection| protection.prove(challenge))
    }

    fn verify(&self, challenge: &[u8], proof: &[u8]) -> Result<(), ProtectionError> {
        of(self.as_deref()).verify(challenge, proof)
    }
}

fn of(protection: Option<&Ciphered>) -> &dyn Protection {
    match protection {
        Some(ciphered) => ciphered,
        None => &Plain,
    }
}

/// [`Plain`] has no state that a fresh one would lack.
fn with<T>(protection: Option<&mut Ciphered>, work: impl FnOnce(&mut dyn Protection) -> T) -> T {
    match protection {
        Some(ciphered) => work(ciphered),
        None => work(&mut Plain),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CipheredConfig, Counter, Keys, ReceivedCounters};
    use super::*;

    #[test]
    fn none_is_plain_and_some_is_what_it_holds() {
        let title = SystemTitle(*b"MMM\x00\x00\x00\x00\x01");
        let config = CipheredConfig::new(Keys::new(Key::from([1; 16]), Key::from([2; 16])), title);
        let ciphered = Ciphered::client(config, Counter::reserved(7, 9), ReceivedCounters::default());
        let (mut some, mut none) = (Some(Box::new(ciphered.unwrap())), None::<Box<Ciphered>>);
        assert_eq!([some.ciphers(), none.ciphers()], [true, false]);
        assert_eq!([some.title(), none.title()], [Some(title), None]);
        for (protection, counters_left) in [(&mut some, 1), (&mut none, 0)] {
            let is_ciphered = protection.ciphers();
            assert_eq!(protection.begin(true, Level::NONE).is_ok(), is_ciphered);
            let sent = protection.protect(Purpose::Service, vec![0xc0, 1]).unwrap();
            assert_eq!(sent == [0xc0, 1], !is_ciphered);
            assert_eq!(protection.as_ref().map_or(0, |ciphered| ciphered.counter().left()), counters_left);
            protection.end();
        }
    }
}
