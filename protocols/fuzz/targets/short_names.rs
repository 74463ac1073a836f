use protocols::dlms::server::{Referencing, ShortNames};

use super::dlms_commands::converse;

/// A server or a client as in `dlms_commands`, and an object list, of whose names each means one thing.
pub(crate) fn target(data: &[u8]) {
    converse(Referencing::ShortNames, data);
    let Ok(names) = ShortNames::decode(data) else { return };
    let again = ShortNames::decode(&names.object_list(|_| true).to_vec()).expect("a list of ours");
    assert_eq!(again.objects(), names.objects());
    for object in names.objects() {
        assert!(names.resolve(object.base_name).is_some(), "{object:?}");
    }
}
