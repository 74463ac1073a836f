use super::*;
use crate::dlms::apdu::CosemAttribute;
use crate::metering::ObisCode;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const ENERGY: CosemAttribute = CosemAttribute::new(3, ObisCode::new(1, 0, 1, 8, 0, 255), 2);

fn whole(attribute: CosemAttribute) -> AttributeReference<'static> {
    AttributeReference { attribute, selection: None }
}

#[test]
fn reading_a_register_is_the_usual_exchange() {
    let golden = [0xc0, 0x01, 0xc1, 0x00, 0x03, 0x01, 0x00, 0x01, 0x08, 0x00, 0xff, 0x02, 0x00];
    let request = GetRequest::Normal { invoke: InvokeId(0xc1), reference: whole(ENERGY) };
    assert_eq!(GetRequest::decode(&golden), Ok(request.clone()));
    assert_eq!(request.encode(), golden);
    assert_eq!(golden.len(), GetRequest::NORMAL_OVERHEAD + whole(ENERGY).encoded_len());

    let golden = [0xc4, 0x01, 0xc1, 0x00, 0x06, 0x00, 0xbc, 0x61, 0x4e];
    let response = GetResponse::Normal { invoke: InvokeId(0xc1), result: Ok(&golden[4..]) };
    assert_eq!(GetResponse::decode(&golden), Ok(response));
    assert_eq!(response.encode(), golden);

    let golden = [0xc4, 0x01, 0xc1, 0x01, 0x04];
    let refused = GetResponse::Normal { invoke: InvokeId(0xc1), result: Err(DataAccessResult::ObjectUndefined) };
    assert_eq!(GetResponse::decode(&golden), Ok(refused));
    assert_eq!(refused.encode(), golden);
}

#[test]
fn a_selection_is_passed_through_with_its_selector() {
    // Entries 1 to 10, all columns: selector 2 and a structure of two double-long-unsigned and two long-unsigned.
    let selection = [0x02, 0x02, 0x04, 0x06, 0, 0, 0, 1, 0x06, 0, 0, 0, 10, 0x12, 0, 1, 0x12, 0, 0];
    let profile = CosemAttribute::new(7, ObisCode::new(1, 0, 99, 1, 0, 255), 2);
    let reference = AttributeReference { attribute: profile, selection: Some(&selection) };
    let request = GetRequest::Normal { invoke: InvokeId::confirmed(1), reference };
    let mut bytes = request.encode();
    assert_eq!(bytes[..3], [0xc0, 0x01, 0x41]);
    assert_eq!(bytes[12], 0x01);
    assert_eq!(GetRequest::decode(&bytes), Ok(request.clone()));
    bytes.push(0x5a);
    assert_eq!(GetRequest::decode(&bytes), Ok(request), "what follows the parameters is no part of them");
}

#[test]
fn blocks_have_the_form_of_the_books() {
    let golden = [0xc0, 0x02, 0xc1, 0x00, 0x00, 0x00, 0x01];
    let next = GetRequest::Next { invoke: InvokeId(0xc1), block: 1 };
    assert_eq!(GetRequest::decode(&golden), Ok(next.clone()));
    assert_eq!(next.encode(), golden);

    let golden = [0xc4, 0x02, 0xc1, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x03, 0x01, 0x02, 0x03];
    let block = GetResponse::Block { invoke: InvokeId(0xc1), last: false, number: 1, result: Ok(&[1, 2, 3]) };
    assert_eq!(GetResponse::decode(&golden), Ok(block));
    assert_eq!(block.encode(), golden);

    let golden = [0xc4, 0x02, 0xc1, 0x01, 0x00, 0x00, 0x00, 0x07, 0x01, 0x0f];
    let aborted = GetResponse::Block {
        invoke: InvokeId(0xc1),
        last: true,
        number: 7,
        result: Err(DataAccessResult::LongGetAborted),
    };
    assert_eq!(GetResponse::decode(&golden), Ok(aborted));
    assert_eq!(aborted.encode(), golden);
}

#[test]
fn the_overhead_of_a_block_covers_the_longest_length() {
    let data = vec![0; 65_000];
    let block = GetResponse::Block { invoke: InvokeId(0x41), last: true, number: 1, result: Ok(&data) };
    assert_eq!(block.encode().len(), data.len() + GetResponse::BLOCK_OVERHEAD);
}

#[test]
fn a_list_has_a_result_for_each_reference() {
    let golden = [
        0xc0, 0x03, 0xc1, 0x02, // two references
        0x00, 0x03, 0x01, 0x00, 0x01, 0x08, 0x00, 0xff, 0x02, 0x00, //
        0x00, 0x08, 0x00, 0x00, 0x01, 0x00, 0x00, 0xff, 0x02, 0x00,
    ];
    let clock = CosemAttribute::new(8, ObisCode::new(0, 0, 1, 0, 0, 255), 2);
    let request = GetRequest::WithList { invoke: InvokeId(0xc1), references: vec![whole(ENERGY), whole(clock)] };
    assert_eq!(GetRequest::decode(&golden), Ok(request.clone()));
    assert_eq!(request.encode(), golden);

    let golden = [0xc4, 0x03, 0xc1, 0x02, 0x00, 0x12, 0x00, 0x05, 0x01, 0x03, 0x77];
    let Ok(GetResponse::WithList { results, .. }) = GetResponse::decode(&golden) else { panic!("no list") };
    let (values, surplus) = read_results(results, 2).unwrap();
    assert_eq!(values, [Ok(&[0x12, 0x00, 0x05][..]), Err(DataAccessResult::ReadWriteDenied)]);
    assert_eq!(surplus, 1);
    assert_eq!(read_results(results, 3), Err(ApduError::Count { expected: 3, found: 2 }));
}

#[test]
fn a_list_that_promises_more_than_it_holds_is_refused() {
    let huge = [0xc0, 0x03, 0xc1, 0x84, 0xff, 0xff, 0xff, 0xff, 0x00, 0x03];
    assert!(matches!(GetRequest::decode(&huge), Err(ApduError::Truncated(_))));
    let block = [0xc4, 0x02, 0xc1, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x84, 0xff, 0xff, 0xff, 0xff, 0x00];
    assert!(matches!(GetResponse::decode(&block), Err(ApduError::Truncated(_))));
}

#[test]
fn another_tag_or_choice_is_named() {
    assert_eq!(GetRequest::decode(&[0xc1, 0x01, 0x41]), Err(ApduError::Tag { found: 0xc1 }));
    assert_eq!(
        GetResponse::decode(&[0xc4, 0x04, 0x41]),
        Err(ApduError::Malformed { what: "GET response choice", offset: 1 })
    );
    assert_eq!(
        GetResponse::decode(&[0xc4, 0x01, 0x41, 0x02]),
        Err(ApduError::Malformed { what: "GET result choice", offset: 3 })
    );
}

fn attributes() -> impl Strategy<Value = CosemAttribute> {
    (any::<u16>(), any::<[u8; 6]>(), any::<i8>())
        .prop_map(|(class, obis, attribute)| CosemAttribute::new(class, ObisCode(obis), attribute))
}

/// A selector and an octet string.
fn selections() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of((any::<u8>(), vec(any::<u8>(), 0..40)).prop_map(|(selector, text)| {
        let mut selection = vec![selector, 0x09];
        write_length(&mut selection, text.len());
        selection.extend(text);
        selection
    }))
}

proptest! {
    #[test]
    fn requests_round_trip(invoke: u8, block: u32, items in vec((attributes(), selections()), 1..200)) {
        let references: Vec<_> = items
            .iter()
            .map(|(attribute, selection)| AttributeReference { attribute: *attribute, selection: selection.as_deref() })
            .collect();
        let invoke = InvokeId(invoke);
        for request in [
            GetRequest::Normal { invoke, reference: references[0] },
            GetRequest::Next { invoke, block },
            GetRequest::WithList { invoke, references: references.clone() },
        ] {
            let bytes = request.encode();
            prop_assert_eq!(GetRequest::decode(&bytes), Ok(request));
        }
    }

    #[test]
    fn responses_round_trip(invoke: u8, last: bool, number: u32, data in option::of(vec(any::<u8>(), 0..400)), refused: u8) {
        let invoke = InvokeId(invoke);
        let result = data.as_deref().ok_or(DataAccessResult::from_octet(refused));
        for response in [
            GetResponse::Normal { invoke, result },
            GetResponse::Block { invoke, last, number, result },
            GetResponse::WithList { invoke, results: data.as_deref().unwrap_or_default() },
        ] {
            let bytes = response.encode();
            prop_assert_eq!(GetResponse::decode(&bytes), Ok(response));
        }
    }

    #[test]
    fn lists_round_trip(values in vec((any::<u32>(), option::of(1u8..)), 0..300)) {
        let results: Vec<Result<Vec<u8>, _>> = values
            .iter()
            .map(|(value, refused)| match refused {
                Some(refused) => Err(DataAccessResult::from_octet(*refused)),
                None => Ok([&[0x06][..], &value.to_be_bytes()].concat()),
            })
            .collect();
        let bytes = write_results(&results);
        let (read, surplus) = read_results(&bytes, results.len()).unwrap();
        prop_assert_eq!(surplus, 0);
        let owned: Vec<_> = read.into_iter().map(|result| result.map(<[u8]>::to_vec)).collect();
        prop_assert_eq!(owned, results);
    }

    #[test]
    fn no_bytes_panic(choice in 0u8..5, bytes in vec(any::<u8>(), 0..80)) {
        drop(GetRequest::decode(&[&[0xc0, choice], bytes.as_slice()].concat()));
        drop(GetResponse::decode(&[&[0xc4, choice], bytes.as_slice()].concat()));
        drop(read_results(&bytes, bytes.len()));
    }
}
