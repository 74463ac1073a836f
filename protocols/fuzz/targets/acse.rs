use protocols::dlms::acse::{AssociationRequest, AssociationResponse, Release};

/// What can be read of an APDU is written so that it reads the same, and no secret of it is shown.
pub(crate) fn target(data: &[u8]) {
    if let Ok(request) = AssociationRequest::decode(data) {
        assert_eq!(AssociationRequest::decode(&request.encode()), Ok(request));
        if let Some(secret) = request.authentication {
            assert_eq!(format!("{secret:?}"), format!("Secret({} octets)", secret.0.len()));
        }
    }
    if let Ok(response) = AssociationResponse::decode(data) {
        assert_eq!(AssociationResponse::decode(&response.encode()), Ok(response));
    }
    if let Ok(release) = Release::decode_request(data) {
        assert_eq!(Release::decode_request(&release.encode_request()), Ok(release));
    }
    if let Ok(release) = Release::decode_response(data) {
        assert_eq!(Release::decode_response(&release.encode_response()), Ok(release));
    }
}
