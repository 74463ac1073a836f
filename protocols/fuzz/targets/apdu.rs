use protocols::dlms::apdu::{
    ActionRequest, ActionResponse, AttributeReference, ConfirmedServiceError, ExceptionResponse, GeneralBlock, GetRequest, GetResponse, InformationReport, InitiateRequest,
    InitiateResponse, ReadRequest, ReadResponse, SetRequest, SetResponse, WriteRequest, WriteResponse, read_outcomes, read_results, read_values, write_outcomes, write_results,
};

/// What can be read of an APDU is written so that it reads the same.
pub(crate) fn target(data: &[u8]) {
    if let Ok(request) = GetRequest::decode(data) {
        assert_eq!(GetRequest::decode(&request.encode()), Ok(request.clone()));
        if let GetRequest::WithList { references, .. } = request {
            let octets: usize = references.iter().map(AttributeReference::encoded_len).sum();
            assert!(octets < data.len(), "{} references", references.len());
        }
    }
    if let Ok(response) = GetResponse::decode(data) {
        assert_eq!(GetResponse::decode(&response.encode()), Ok(response));
        if let GetResponse::WithList { results, .. } = response {
            list(results);
        }
    }
    if let Ok(request) = SetRequest::decode(data) {
        assert_eq!(SetRequest::decode(&request.encode()), Ok(request));
    }
    if let Ok(response) = SetResponse::decode(data) {
        assert_eq!(SetResponse::decode(&response.encode()), Ok(response));
    }
    if let Ok(request) = ActionRequest::decode(data) {
        assert_eq!(ActionRequest::decode(&request.encode()), Ok(request));
    }
    if let Ok(response) = ActionResponse::decode(data) {
        assert_eq!(ActionResponse::decode(&response.encode()), Ok(response));
        if let ActionResponse::WithList { outcomes, .. } = response {
            outcome_list(outcomes);
        }
    }
    if let Ok(request) = ReadRequest::decode(data) {
        assert_eq!(ReadRequest::decode(&request.encode()), Ok(request));
    }
    if let Ok(Ok((results, surplus))) = ReadResponse::decode(data).map(|response| response.results()) {
        let again = ReadResponse::encode(&results);
        // Counts and lengths may have been written longer than they must be.
        assert!(again.len() + surplus <= data.len());
        assert_eq!(ReadResponse::decode(&again).map(|response| response.results()), Ok(Ok((results, 0))));
    }
    if let Ok(request) = WriteRequest::decode(data) {
        assert_eq!(WriteRequest::decode(&request.encode()), Ok(request));
    }
    if let Ok(request) = WriteRequest::decode_unconfirmed(data) {
        assert_eq!(WriteRequest::decode_unconfirmed(&request.encode_unconfirmed()), Ok(request));
    }
    if let Ok(response) = WriteResponse::decode(data) {
        assert_eq!(WriteResponse::decode(&response.encode()), Ok(response));
    }
    if let Ok(report) = InformationReport::decode(data) {
        assert_eq!(InformationReport::decode(&report.encode()), Ok(report));
    }
    if let Ok(block) = GeneralBlock::decode(data) {
        assert_eq!(GeneralBlock::decode(&block.encode()), Ok(block));
    }
    if let Ok(request) = InitiateRequest::decode(data) {
        assert_eq!(InitiateRequest::decode(&request.encode()), Ok(request));
    }
    if let Ok(response) = InitiateResponse::decode(data) {
        assert_eq!(InitiateResponse::decode(&response.encode()), Ok(response));
    }
    if let Ok(exception) = ExceptionResponse::decode(data) {
        assert_eq!(ExceptionResponse::decode(&exception.encode()), Ok(exception));
        assert!(!exception.to_string().is_empty());
    }
    if let Ok(error) = ConfirmedServiceError::decode(data) {
        assert_eq!(ConfirmedServiceError::decode(&error.encode()), Ok(error));
        assert!(!error.to_string().is_empty());
    }
}

fn list(octets: &[u8]) {
    for expected in 0..4 {
        let Ok((results, surplus)) = read_results(octets, expected) else { continue };
        assert_eq!(results.len(), expected);
        let owned: Vec<_> = results.iter().map(|result| result.map(<[u8]>::to_vec)).collect();
        let again = write_results(&owned);
        // The count may have been written longer than it must be.
        assert!(again.len() + surplus <= octets.len());
        assert_eq!(read_results(&again, expected), Ok((results, 0)));
    }
}

fn outcome_list(octets: &[u8]) {
    for expected in 0..4 {
        if let Ok((outcomes, surplus)) = read_outcomes(octets, expected) {
            let again = write_outcomes(&outcomes);
            // One flag more than was there, where a meter left it out.
            assert!(again.len() + surplus <= octets.len() + 1);
            assert_eq!(read_outcomes(&again, expected), Ok((outcomes, 0)));
        }
        assert!(read_values(octets, expected).map_or(true, |values| values.len() == expected));
    }
}
