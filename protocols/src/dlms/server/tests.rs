//! The server, APDU by APDU.

use super::*;
use crate::dlms::acse::{
    ApplicationContext, AssociationRequest, AssociationResponse, AssociationResult, Mechanism, Password, Secret,
};
use crate::dlms::apdu::{AttributeReference, ConfirmedServiceError, GetRequest, InvokeId};
use crate::dlms::pair::{ENERGY, Objects, PROFILE};
use proptest::prelude::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(octet).collect()
}

/// The AARQ of the books with the password 12345678.
const LOW_LEVEL: &str =
    "6036a1090607608574050801018a0207808b0760857405080201ac0a80083132333435363738be10040e01000000065f1f0400007e1f04b0";
const PUBLIC: &str = "601da109060760857405080101be10040e01000000065f1f0400007e1f04b0";
const GET_ENERGY: &str = "c001c100030100010800ff0200";

fn config() -> ServerConfig {
    ServerConfig {
        reader_password: Some(Password::new("12345678")),
        max_receive_pdu_size: 500,
        ..ServerConfig::default()
    }
}

fn associated() -> (ServerSession, Objects) {
    let (mut session, mut objects) = (ServerSession::new(config()), Objects::default());
    session.answer(&hex(LOW_LEVEL), &mut objects).unwrap();
    assert_eq!(session.take_event(), Some(ServerEvent::Associated(ClientRole::Reader)));
    (session, objects)
}

fn answer(session: &mut ServerSession, objects: &mut Objects, apdu: &str) -> Vec<u8> {
    session.answer(&hex(apdu), objects).expect("no answer")
}

#[test]
fn the_answers_on_the_wire_are_those_of_the_books() {
    let (mut session, mut objects) = (ServerSession::new(config()), Objects::default());
    let aare = answer(&mut session, &mut objects, PUBLIC);
    let golden = "6129a109060760857405080101a203020100a305a103020100be10040e0800065f1f04000012 1401f40007";
    assert_eq!(aare, hex(golden));
    let aare = answer(&mut session, &mut objects, LOW_LEVEL);
    let golden = "6136a109060760857405080101a203020100a305a103020100 88020780 890760857405080201 \
                  be10040e0800065f1f040000121401f40007";
    assert_eq!(aare, hex(golden));
    assert_eq!(answer(&mut session, &mut objects, GET_ENERGY), hex("c401c1000600bc614e"));
    assert_eq!(answer(&mut session, &mut objects, "6203800100"), hex("6303800100"));
    assert_eq!(session.client(), None);
}

#[test]
fn nothing_is_read_before_the_association_or_after_its_end() {
    let (mut session, mut objects) = (ServerSession::new(config()), Objects::default());
    assert_eq!(answer(&mut session, &mut objects, GET_ENERGY), hex("d80101"));
    answer(&mut session, &mut objects, PUBLIC);
    assert_eq!(session.client(), Some(ClientRole::Public));
    assert_eq!(answer(&mut session, &mut objects, GET_ENERGY)[..4], hex("c401c100"));
    answer(&mut session, &mut objects, "6200");
    assert_eq!(answer(&mut session, &mut objects, GET_ENERGY), hex("d80101"));
    answer(&mut session, &mut objects, PUBLIC);
    session.reset();
    assert_eq!(answer(&mut session, &mut objects, GET_ENERGY), hex("d80101"));
    assert_eq!(objects.reads, 1);
}

#[test]
fn a_refused_association_ends_the_one_before() {
    let (mut session, mut objects) = associated();
    let wrong = hex(LOW_LEVEL).iter().map(|&octet| if octet == 0x38 { 0x39 } else { octet }).collect::<Vec<_>>();
    session.answer(&wrong, &mut objects).unwrap();
    assert_eq!(session.take_event(), Some(ServerEvent::Rejected(Diagnostic::AUTHENTICATION_FAILURE)));
    assert_eq!(answer(&mut session, &mut objects, GET_ENERGY), hex("d80101"));
}

/// An AARQ as [`LOW_LEVEL`] with one thing changed.
fn rejection(change: impl Fn(&mut AssociationRequest<'_>)) -> (AssociationResult, Diagnostic) {
    let bytes = hex(LOW_LEVEL);
    let mut request = AssociationRequest::decode(&bytes).unwrap();
    change(&mut request);
    let (mut session, mut objects) = (ServerSession::new(config()), Objects::default());
    let apdu = session.answer(&request.encode(), &mut objects).unwrap();
    let response = AssociationResponse::decode(&apdu).unwrap();
    assert_eq!(session.client().is_some(), response.result == AssociationResult::Accepted);
    (response.result, response.diagnostic)
}

#[test]
fn each_reason_to_refuse_has_its_diagnostic() {
    let rejected = |diagnostic| (AssociationResult::RejectedPermanent, diagnostic);
    assert_eq!(rejection(|_| {}), (AssociationResult::Accepted, Diagnostic::NULL));
    for context in
        [ApplicationContext::ShortName, ApplicationContext::LogicalNameCiphered, ApplicationContext::Other(9)]
    {
        assert_eq!(
            rejection(|request| request.context = context),
            rejected(Diagnostic::APPLICATION_CONTEXT_NOT_SUPPORTED)
        );
    }
    assert_eq!(rejection(|request| request.version_1 = false), rejected(Diagnostic::NO_COMMON_ACSE_VERSION));
    assert_eq!(
        rejection(|request| request.mechanism = Some(Mechanism::HighGmac)),
        rejected(Diagnostic::MECHANISM_NOT_RECOGNISED)
    );
    assert_eq!(rejection(|request| request.authentication = None), rejected(Diagnostic::AUTHENTICATION_REQUIRED));
    for wrong in [&b""[..], b"1234567", b"123456789", b"87654321"] {
        assert_eq!(
            rejection(|request| request.authentication = Some(Secret(wrong))),
            rejected(Diagnostic::AUTHENTICATION_FAILURE)
        );
    }
    assert_eq!(rejection(|request| request.user_information = None), rejected(Diagnostic::NO_REASON_GIVEN));
    assert_eq!(
        rejection(|request| request.user_information = Some(&[0x21, 0x00])),
        rejected(Diagnostic::NO_REASON_GIVEN)
    );
}

#[test]
fn each_error_of_initiate_has_its_number() {
    for (initiate, error) in [
        ("01000000055f1f0400007e1f04b0", ConfirmedServiceError::DLMS_VERSION_TOO_LOW),
        ("01000000065f1f04001c032004b0", ConfirmedServiceError::INCOMPATIBLE_CONFORMANCE),
        ("01000000065f1f0400007e1f000c", ConfirmedServiceError::PDU_SIZE_TOO_SHORT),
        ("0107", ConfirmedServiceError::REFUSED_BY_THE_VDE_HANDLER),
    ] {
        let (mut session, mut objects) = (ServerSession::new(config()), Objects::default());
        let bytes = hex(LOW_LEVEL);
        let initiate = hex(initiate);
        let request =
            AssociationRequest { user_information: Some(&initiate), ..AssociationRequest::decode(&bytes).unwrap() };
        let apdu = session.answer(&request.encode(), &mut objects).unwrap();
        let response = AssociationResponse::decode(&apdu).unwrap();
        assert_eq!(ConfirmedServiceError::decode(response.user_information.unwrap()), Ok(error));
    }
}

#[test]
fn the_old_conformance_tag_is_understood() {
    let (mut session, mut objects) = (ServerSession::new(config()), Objects::default());
    let bytes = hex(LOW_LEVEL);
    let initiate = hex("01000000065f0400007e1f04b0");
    let request =
        AssociationRequest { user_information: Some(&initiate), ..AssociationRequest::decode(&bytes).unwrap() };
    session.answer(&request.encode(), &mut objects).unwrap();
    assert_eq!(session.client(), Some(ClientRole::Reader));
}

#[test]
fn services_that_are_not_there_are_named_as_such() {
    let (mut session, mut objects) = associated();
    for known in ["c101c1 0008 0000010000ff 0200 090c", "c301c1 0046 000060030aff 0100", "d900000000"] {
        assert_eq!(answer(&mut session, &mut objects, known), hex("d80102"), "{known}");
    }
    for unknown in ["05010200", "ff", "c400", "61", "0f00000001"] {
        assert_eq!(answer(&mut session, &mut objects, unknown), hex("d80202"), "{unknown}");
    }
    assert_eq!(answer(&mut session, &mut objects, "c805300000000 1ab"), hex("d80105"));
    assert_eq!(answer(&mut session, &mut objects, "c001c1"), hex("d80103"));
    assert_eq!(session.answer(&[], &mut objects), None);
    let too_long = [hex(GET_ENERGY), vec![0; 500]].concat();
    assert_eq!(session.answer(&too_long, &mut objects), Some(hex("d80104")));
    assert_eq!(session.client(), Some(ClientRole::Reader), "the association goes on");
}

#[test]
fn a_service_outside_the_negotiated_conformance_is_refused() {
    let (mut session, mut objects) = (ServerSession::new(config()), Objects::default());
    let bytes = hex(PUBLIC);
    // GET alone.
    let initiate = hex("01000000065f1f04000000100064");
    let request =
        AssociationRequest { user_information: Some(&initiate), ..AssociationRequest::decode(&bytes).unwrap() };
    session.answer(&request.encode(), &mut objects).unwrap();
    assert_eq!(answer(&mut session, &mut objects, "c003c101 00030100010800ff0200"), hex("d80102"));
    assert_eq!(answer(&mut session, &mut objects, "c001c1 0007 0100630100ff 02 01 0100"), hex("c401c101fa"));
    assert_eq!(answer(&mut session, &mut objects, "c001c1 0007 0100630100ff 02 00"), hex("c401c101fa"));
    assert_eq!(answer(&mut session, &mut objects, GET_ENERGY), hex("c401c1000600bc614e"));
}

#[test]
fn blocks_that_nobody_began_are_refused() {
    let (mut session, mut objects) = associated();
    assert_eq!(answer(&mut session, &mut objects, "c002c100000001"), hex("c402c101000000010110"));
    let first = answer(&mut session, &mut objects, "c001c1 0007 0100630100ff 0200");
    assert_eq!(first.len(), 1_200, "a block fills the PDU of the client");
    assert_eq!(first[..9], hex("c402c1000000000100"));
    assert_eq!(answer(&mut session, &mut objects, "c002c100000007"), hex("c402c101000000070113"));
    assert_eq!(answer(&mut session, &mut objects, "c002c100000001"), hex("c402c101000000010110"), "it was aborted");
}

#[test]
fn another_get_ends_a_block_transfer() {
    let (mut session, mut objects) = associated();
    answer(&mut session, &mut objects, "c001c1 0007 0100630100ff 0200");
    answer(&mut session, &mut objects, GET_ENERGY);
    assert_eq!(answer(&mut session, &mut objects, "c002c100000001"), hex("c402c101000000010110"));
}

#[test]
fn a_list_that_names_a_profile_many_times_stays_bounded() {
    let mut session = ServerSession::new(ServerConfig { max_receive_pdu_size: 0, ..config() });
    let mut objects = Objects::default();
    session.answer(&hex(LOW_LEVEL), &mut objects).unwrap();
    let reference = AttributeReference { attribute: PROFILE, selection: None };
    let references = vec![reference; 5_000];
    let request = GetRequest::WithList { invoke: InvokeId::confirmed(1), references };
    session.answer(&request.encode(), &mut objects).unwrap();
    assert!(objects.reads < 200, "{} profiles were read", objects.reads);
    assert_eq!(objects.read(ENERGY, None).unwrap().len(), 5);
}

proptest! {
    #[test]
    fn no_bytes_panic(apdus in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..10)) {
        let (mut session, mut objects) = associated();
        for apdu in apdus {
            drop(session.answer(&apdu, &mut objects));
        }
    }
}
