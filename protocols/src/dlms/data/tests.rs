use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn random_octets_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(data) = Data::from_bytes(&bytes) {
            drop(format!("{data:?}"));
        }
    }
}
