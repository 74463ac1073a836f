use super::*;
use proptest::option;
use proptest::prelude::*;

const INITIATE_REQUEST: [u8; 14] = [0x01, 0x00, 0x00, 0x00, 0x06, 0x5f, 0x1f, 0x04, 0x00, 0x00, 0x7e, 0x1f, 0x04, 0xb0];

/// Encodes behind a filled prefix, so that a writer that reaches backwards is seen, and compares.
fn assert_bytes(encoded: &[u8], golden: &[u8]) {
    assert_eq!(encoded, golden, "\n{encoded:02x?}\n{golden:02x?}");
}

fn low_level_request() -> AssociationRequest<'static> {
    AssociationRequest {
        version_1: true,
        context: ApplicationContext::LogicalName,
        calling_ap_title: None,
        calling_user_id: None,
        mechanism: Some(Mechanism::Low),
        authentication: Some(Secret(b"12345678")),
        user_information: Some(&INITIATE_REQUEST),
    }
}

#[test]
fn the_request_without_security_is_the_one_of_the_books() {
    let mut golden = vec![0x60, 0x1d, 0xa1, 0x09, 0x06, 0x07, 0x60, 0x85, 0x74, 0x05, 0x08, 0x01, 0x01];
    golden.extend([0xbe, 0x10, 0x04, 0x0e]);
    golden.extend(INITIATE_REQUEST);
    let request = AssociationRequest { mechanism: None, authentication: None, ..low_level_request() };
    assert_bytes(&request.encode(), &golden);
    assert_eq!(AssociationRequest::decode(&golden), Ok(request));
}

#[test]
fn the_request_with_a_password_is_the_one_of_the_books() {
    let mut golden = vec![0x60, 0x36, 0xa1, 0x09, 0x06, 0x07, 0x60, 0x85, 0x74, 0x05, 0x08, 0x01, 0x01];
    golden.extend([0x8a, 0x02, 0x07, 0x80, 0x8b, 0x07, 0x60, 0x85, 0x74, 0x05, 0x08, 0x02, 0x01]);
    golden.extend([0xac, 0x0a, 0x80, 0x08, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0xbe, 0x10, 0x04, 0x0e]);
    golden.extend(INITIATE_REQUEST);
    assert_bytes(&low_level_request().encode(), &golden);
    assert_eq!(AssociationRequest::decode(&golden), Ok(low_level_request()));
}

#[test]
fn the_positive_response_is_the_one_of_the_books() {
    let initiate = [0x08, 0x00, 0x06, 0x5f, 0x1f, 0x04, 0x00, 0x00, 0x50, 0x1f, 0x01, 0xf4, 0x00, 0x07];
    let mut golden = vec![0x61, 0x29, 0xa1, 0x09, 0x06, 0x07, 0x60, 0x85, 0x74, 0x05, 0x08, 0x01, 0x01];
    golden.extend([0xa2, 0x03, 0x02, 0x01, 0x00, 0xa3, 0x05, 0xa1, 0x03, 0x02, 0x01, 0x00, 0xbe, 0x10, 0x04, 0x0e]);
    golden.extend(initiate);
    let response = AssociationResponse {
        context: ApplicationContext::LogicalName,
        result: AssociationResult::Accepted,
        diagnostic: Diagnostic::NULL,
        responding_ap_title: None,
        mechanism: None,
        authentication: None,
        user_information: Some(&initiate),
    };
    assert_bytes(&response.encode(), &golden);
    assert_eq!(AssociationResponse::decode(&golden), Ok(response));
}

#[test]
fn the_refusal_for_the_dlms_version_is_the_one_of_the_books() {
    let mut golden = vec![0x61, 0x1f, 0xa1, 0x09, 0x06, 0x07, 0x60, 0x85, 0x74, 0x05, 0x08, 0x01, 0x01];
    golden.extend([0xa2, 0x03, 0x02, 0x01, 0x01, 0xa3, 0x05, 0xa1, 0x03, 0x02, 0x01, 0x01]);
    golden.extend([0xbe, 0x06, 0x04, 0x04, 0x0e, 0x01, 0x06, 0x01]);
    let response = AssociationResponse::decode(&golden).unwrap();
    assert_eq!(response.result, AssociationResult::RejectedPermanent);
    assert_eq!(response.diagnostic, Diagnostic::NO_REASON_GIVEN);
    assert_eq!(response.user_information, Some(&[0x0e, 0x01, 0x06, 0x01][..]));
    assert_bytes(&response.encode(), &golden);
}

#[test]
fn a_refusal_without_user_information_is_read() {
    let mut golden = vec![0x61, 0x17, 0xa1, 0x09, 0x06, 0x07, 0x60, 0x85, 0x74, 0x05, 0x08, 0x01, 0x01];
    golden.extend([0xa2, 0x03, 0x02, 0x01, 0x02, 0xa3, 0x05, 0xa1, 0x03, 0x02, 0x01, 0x0d]);
    let response = AssociationResponse::decode(&golden).unwrap();
    assert_eq!(response.result, AssociationResult::RejectedTransient);
    assert_eq!(response.diagnostic, Diagnostic::AUTHENTICATION_FAILURE);
    assert_eq!(response.user_information, None);
}

#[test]
fn a_high_level_response_keeps_title_mechanism_and_challenge() {
    let response = AssociationResponse {
        context: ApplicationContext::LogicalNameCiphered,
        result: AssociationResult::Accepted,
        diagnostic: Diagnostic::AUTHENTICATION_REQUIRED,
        responding_ap_title: Some(b"MMM\x00\x00\xbcaN"),
        mechanism: Some(Mechanism::HighGmac),
        authentication: Some(Secret(b"P6wRJ21F")),
        user_information: None,
    };
    let bytes = response.encode();
    let golden = [0x88, 0x02, 0x07, 0x80, 0x89, 0x07, 0x60, 0x85, 0x74, 0x05, 0x08, 0x02, 0x05, 0xaa, 0x0a, 0x80, 0x08];
    assert!(bytes.windows(golden.len()).any(|window| window == golden), "{bytes:02x?}");
    assert_eq!(AssociationResponse::decode(&bytes), Ok(response));
}

#[test]
fn the_protocol_version_is_optional_and_checked() {
    // 80 02 02 84 sets bits 0 and 5, as one widespread stack does.
    for (bytes, version_1) in
        [([0x80, 0x02, 0x02, 0x84], true), ([0x80, 0x02, 0x07, 0x80], true), ([0x80, 0x02, 0x07, 0x00], false)]
    {
        let mut apdu = vec![0x60, 0x0f];
        apdu.extend(bytes);
        apdu.extend([0xa1, 0x09, 0x06, 0x07, 0x60, 0x85, 0x74, 0x05, 0x08, 0x01, 0x01]);
        assert_eq!(AssociationRequest::decode(&apdu).unwrap().version_1, version_1);
    }
}

#[test]
fn fields_that_nobody_needs_are_passed_over() {
    let apdu = [
        0x60, 0x15, 0xa1, 0x09, 0x06, 0x07, 0x60, 0x85, 0x74, 0x05, 0x08, 0x01, 0x02, // short names
        0xa7, 0x03, 0x04, 0x01, 0x55, // calling-AE-qualifier
        0xa9, 0x03, 0x02, 0x01, 0x07, // calling-AE-invocation-id
    ];
    let request = AssociationRequest::decode(&apdu).unwrap();
    assert_eq!((request.context, request.calling_user_id), (ApplicationContext::ShortName, Some(7)));
}

#[test]
fn values_longer_than_127_octets_keep_their_lengths() {
    for length in [0, 127, 128, 255, 256, 65_535, 65_536] {
        let long = vec![0x5a; length];
        let request = AssociationRequest { user_information: Some(&long), ..low_level_request() };
        assert_eq!(AssociationRequest::decode(&request.encode()), Ok(request), "length {length}");
    }
}

#[test]
fn release_is_the_one_of_the_books_with_and_without_a_reason() {
    assert_bytes(&Release::NORMAL.encode_request(), &[0x62, 0x03, 0x80, 0x01, 0x00]);
    assert_bytes(&Release::NORMAL.encode_response(), &[0x63, 0x03, 0x80, 0x01, 0x00]);
    assert_eq!(Release::decode_request(&[0x62, 0x00]), Ok(Release::default()));
    assert_eq!(Release::decode_response(&[0x63, 0x03, 0x80, 0x01, 0x1e]).unwrap().reason, Some(30));
    assert_eq!(Release::decode_response(&[0x62, 0x00]), Err(AcseError::Tag { expected: RLRE, found: RLRQ }));
}

#[test]
fn what_is_missing_or_torn_is_named() {
    assert_eq!(
        AssociationRequest::decode(&[0x60, 0x00]),
        Err(AcseError::Missing { field: "application-context-name" })
    );
    assert_eq!(AssociationRequest::decode(&[0x60, 0x02, 0xa1, 0x09]), Err(AcseError::Malformed { field: "AARQ" }));
    assert_eq!(AssociationRequest::decode(&[0x60, 0x80]), Err(AcseError::Malformed { field: "AARQ" }));
    assert_eq!(AssociationRequest::decode(&[]), Err(AcseError::Malformed { field: "AARQ" }));
    let foreign = [0x60, 0x0b, 0xa1, 0x09, 0x06, 0x07, 0x60, 0x85, 0x74, 0x05, 0x09, 0x01, 0x01];
    assert_eq!(AssociationRequest::decode(&foreign), Err(AcseError::Malformed { field: "application-context-name" }));
}

#[test]
fn no_debug_output_shows_a_password() {
    let password = Password::new("topsecret");
    let request = AssociationRequest { authentication: Some(password.expose()), ..low_level_request() };
    let shown = format!("{password:?} {request:?}");
    assert!(!shown.contains("topsecret") && !shown.contains("116"), "{shown}");
}

#[test]
fn a_password_matches_only_itself() {
    let password = Password::new("12345678");
    assert!(password.matches(b"12345678"));
    for wrong in [&b"12345679"[..], b"1234567", b"123456789", b""] {
        assert!(!password.matches(wrong));
    }
}

fn contexts() -> impl Strategy<Value = ApplicationContext> {
    prop_oneof![
        Just(ApplicationContext::LogicalName),
        Just(ApplicationContext::ShortName),
        Just(ApplicationContext::LogicalNameCiphered),
        Just(ApplicationContext::ShortNameCiphered),
        (5u8..).prop_map(ApplicationContext::Other),
    ]
}

fn mechanisms() -> impl Strategy<Value = Mechanism> {
    (0u8..).prop_map(|number| Mechanism::decode(&[0x60, 0x85, 0x74, 0x05, 0x08, 0x02, number]).unwrap())
}

fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(proptest::collection::vec(any::<u8>(), 0..300))
}

proptest! {
    #[test]
    fn requests_round_trip(
        version_1: bool, context in contexts(), title in bytes(), calling_user_id: Option<u8>,
        mechanism in option::of(mechanisms()), authentication in bytes(), user in bytes(),
    ) {
        let request = AssociationRequest {
            version_1, context, calling_ap_title: title.as_deref(), calling_user_id, mechanism,
            authentication: authentication.as_deref().map(Secret), user_information: user.as_deref(),
        };
        let bytes = request.encode();
        prop_assert_eq!(AssociationRequest::decode(&bytes), Ok(request));
    }

    #[test]
    fn responses_round_trip(
        context in contexts(), result in 0u8..3, diagnostic: (bool, u8), title in bytes(),
        mechanism in option::of(mechanisms()), authentication in bytes(), user in bytes(),
    ) {
        let response = AssociationResponse {
            context,
            result: AssociationResult::decode(&[0x02, 0x01, result]).unwrap(),
            diagnostic: if diagnostic.0 { Diagnostic::User(diagnostic.1) } else { Diagnostic::Provider(diagnostic.1) },
            responding_ap_title: title.as_deref(), mechanism,
            authentication: authentication.as_deref().map(Secret), user_information: user.as_deref(),
        };
        let bytes = response.encode();
        prop_assert_eq!(AssociationResponse::decode(&bytes), Ok(response));
    }

    #[test]
    fn releases_round_trip(reason: Option<u8>, user in bytes()) {
        let release = Release { reason, user_information: user.as_deref() };
        let bytes = release.encode_request();
        prop_assert_eq!(Release::decode_request(&bytes), Ok(release));
        let bytes = release.encode_response();
        prop_assert_eq!(Release::decode_response(&bytes), Ok(release));
    }

    #[test]
    fn no_bytes_panic(mut apdu in proptest::collection::vec(any::<u8>(), 0..80), tag in 0x60u8..0x64) {
        if let Some(first) = apdu.first_mut() {
            *first = tag;
        }
        drop((AssociationRequest::decode(&apdu), AssociationResponse::decode(&apdu), Release::decode_request(&apdu)));
    }

    #[test]
    fn damaged_requests_do_not_panic(at in 0usize..56, with: u8) {
        let mut apdu = low_level_request().encode();
        apdu[at] = with;
        drop(AssociationRequest::decode(&apdu));
    }
}
