//! What an error of a connection means to whoever has to mend it.

use std::error::Error;
use std::io;

use rumqttc::{ConnectReturnCode, ConnectionError};
use rustls::{AlertDescription, CertificateError, Error as TlsError};

/// A mistake in settings or certificates, here or at the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub problem: String,
    pub hint: &'static str,
}

const CLOCKS: &str = "renew it; if it is not that old, set the clock of this machine";

/// `None`: nothing that settings would mend. `is_first`: nothing has come from the broker yet.
#[must_use]
pub fn trouble(error: &ConnectionError, has_tls: bool, is_first: bool) -> Option<Trouble> {
    let told = |problem: &str, hint| Some(Trouble { problem: problem.to_owned(), hint });
    if let ConnectionError::ConnectionRefused(code) = error {
        return matches!(code, ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized).then(|| {
            let problem = format!("the broker does not let us in: {code:?}");
            Trouble {
                problem,
                hint: "compare user and password, or the name in cert_file, with those that the broker knows",
            }
        });
    }
    match cause(error) {
        Some(Cause::Tls(error)) => Some(tls_trouble(error)),
        Some(Cause::Ended) if is_first && matches!(error, ConnectionError::Tls(_)) => told(
            "the broker closed the connection before TLS was set up",
            "is this its port for TLS? Otherwise its log says why",
        ),
        Some(Cause::Ended) if is_first && has_tls => told(
            "the broker closed the connection as soon as it had our certificate",
            "cert_file must be signed by an authority that the broker trusts, and be in time: its log says why",
        ),
        Some(Cause::Ended) if is_first => told(
            "the broker closed the connection before it had said anything",
            "if this is its port for TLS, set ca_file, and cert_file and key_file if it asks for a certificate",
        ),
        _ => None,
    }
}

enum Cause<'a> {
    Tls(&'a TlsError),
    /// By the other side.
    Ended,
}

fn cause(error: &ConnectionError) -> Option<Cause<'_>> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<TlsError>() {
            return Some(Cause::Tls(error));
        }
        if let Some(rumqttc::StateError::ConnectionAborted) = error.downcast_ref() {
            return Some(Cause::Ended);
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
            if let Some(error) = inner {
                return Some(Cause::Tls(error));
            }
            let by_the_other_side =
                [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
            return by_the_other_side.contains(&error.kind()).then_some(Cause::Ended);
        }
        next = error.source();
    }
    None
}

fn tls_trouble(error: &TlsError) -> Trouble {
    let told = |problem: String, hint| Trouble { problem, hint };
    match error {
        TlsError::InvalidCertificate(error) => certificate_trouble(error),
        TlsError::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::NoCertificate) => told(
            "the broker asks for a certificate, and got none".to_owned(),
            "set cert_file and key_file to one that an authority signed which the broker trusts",
        ),
        TlsError::AlertReceived(AlertDescription::CertificateExpired) => {
            told("the broker refuses our certificate: it has expired".to_owned(), "renew cert_file")
        }
        TlsError::AlertReceived(AlertDescription::CertificateRevoked) => told(
            "the broker refuses our certificate: it is revoked".to_owned(),
            "have another one signed for cert_file and key_file",
        ),
        TlsError::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError),
        ) => told(
            format!("the broker refuses our certificate: {alert:?}"),
            "cert_file must be signed by an authority that the broker trusts (its `cafile`), for a client",
        ),
        TlsError::AlertReceived(AlertDescription::ProtocolVersion) | TlsError::PeerIncompatible(_) => {
            told(format!("the broker's TLS is not ours: {error}"), "let the broker speak TLS 1.2 or 1.3")
        }
        TlsError::InvalidMessage(_) => {
            told("what answers does not speak TLS".to_owned(), "is this the broker's port for TLS?")
        }
        _ => told(format!("no TLS with the broker: {error}"), "the broker's log may say more"),
    }
}

fn certificate_trouble(error: &CertificateError) -> Trouble {
    let told = |problem: &str, hint| Trouble { problem: problem.to_owned(), hint };
    match error {
        // Another authority of the same name shows as a wrong signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => told(
            "the broker's certificate is signed by nobody in ca_file",
            "ca_file must hold the certificate of the authority that signed the broker's",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            told("the broker's certificate has expired", CLOCKS)
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            told("the broker's certificate is not valid yet", "set the clock of this machine")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => told(
            &format!("the broker's certificate is for somebody else: {error}"),
            "call the broker by a name that its certificate has, or have one made for the name that it is called by",
        ),
        error => told(&format!("the broker's certificate is not accepted: {error}"), "have another one signed for it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_handshake(error: TlsError) -> ConnectionError {
        ConnectionError::Tls(rumqttc::TlsError::Io(io::Error::new(io::ErrorKind::InvalidData, error)))
    }

    fn after_it(error: io::Error) -> ConnectionError {
        ConnectionError::MqttState(rumqttc::StateError::Deserialization(rumqttc::Error::Io(error)))
    }

    fn problem(error: &ConnectionError) -> String {
        trouble(error, true, true).map_or_else(String::new, |trouble| trouble.problem)
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_told_wherever_it_shows() {
        let wrong = |error| problem(&in_handshake(TlsError::InvalidCertificate(error)));
        assert_eq!(wrong(CertificateError::UnknownIssuer), "the broker's certificate is signed by nobody in ca_file");
        assert_eq!(wrong(CertificateError::Expired), "the broker's certificate has expired");
        assert!(wrong(CertificateError::NotValidForName).starts_with("the broker's certificate is for somebody else"));
        for alert in [AlertDescription::UnknownCA, AlertDescription::CertificateExpired] {
            let alert = TlsError::AlertReceived(alert);
            let (early, late) =
                (in_handshake(alert.clone()), after_it(io::Error::new(io::ErrorKind::InvalidData, alert)));
            assert!(problem(&early).starts_with("the broker refuses our certificate: "), "{}", problem(&early));
            assert_eq!(problem(&early), problem(&late));
        }
    }

    /// A broker that refuses a certificate may be gone before its alert is read.
    #[test]
    fn a_connection_that_ends_at_once_is_told_by_how_far_it_came() {
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        let problem = |error: &ConnectionError, has_tls, is_first| {
            trouble(error, has_tls, is_first)
                .map(|trouble| trouble.problem.split_once(" before ").map_or("", |(_, rest)| rest).to_owned())
        };
        let in_tls = ConnectionError::Tls(rumqttc::TlsError::Io(reset()));
        assert_eq!(problem(&in_tls, true, true).as_deref(), Some("TLS was set up"));
        assert_eq!(problem(&after_it(reset()), false, true).as_deref(), Some("it had said anything"));
        assert!(trouble(&after_it(reset()), true, true).unwrap().problem.ends_with("had our certificate"));
        assert!(trouble(&ConnectionError::MqttState(rumqttc::StateError::ConnectionAborted), true, true).is_some());
        // Brokers are restarted.
        assert_eq!(trouble(&after_it(reset()), true, false), None);
        assert_eq!(trouble(&ConnectionError::NetworkTimeout, true, true), None);
        assert_eq!(trouble(&ConnectionError::Io(io::ErrorKind::ConnectionRefused.into()), true, true), None);
    }

    #[test]
    fn a_login_that_is_refused_is_told_and_an_overloaded_broker_is_none() {
        let refused = |code| trouble(&ConnectionError::ConnectionRefused(code), false, true);
        assert!(refused(ConnectReturnCode::BadUserNamePassword).is_some());
        assert!(refused(ConnectReturnCode::NotAuthorized).is_some());
        assert_eq!(refused(ConnectReturnCode::ServiceUnavailable), None);
    }
}
