use protocols::dlms::notification::{
    DATA_NOTIFICATION, NotificationBody, decode_data_notification, encode_data_notification,
};

use super::axdr::owned;

/// A push reads the same when we push it, and described values are as many as it says.
pub(crate) fn target(data: &[u8]) {
    let notification = match decode_data_notification(data) {
        Ok(notification) => notification,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert_eq!(data.first(), Some(&DATA_NOTIFICATION));
    assert!(data.ends_with(notification.surplus));
    match notification.body {
        NotificationBody::Described(values) => {
            assert_eq!(values.iter().count(), values.len());
            assert!(notification.surplus.is_empty());
        }
        NotificationBody::Data(body) => {
            let Some(body) = owned(body) else { return };
            let mut apdu = Vec::new();
            encode_data_notification(
                notification.long_invoke_id_and_priority,
                notification.date_time,
                &body,
                &mut apdu,
            );
            let again = decode_data_notification(&apdu).expect("our own push is sound");
            assert_eq!(again.invoke_id(), notification.invoke_id());
            assert_eq!(again.date_time, notification.date_time);
            let NotificationBody::Data(again) = again.body else { panic!("a plain body was read as a described one") };
            assert_eq!(owned(again).map(|again| again.to_vec()), Some(body.to_vec()));
        }
    }
}
