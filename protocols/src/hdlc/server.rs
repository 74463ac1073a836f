//! The server's end of a link: it speaks only when polled.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use super::address::{ClientAddress, HdlcAddress};
use super::client::PUSH_GAP_MAX;
use super::config::HdlcConfig;
use super::control::{Control, Sequence};
use super::echo::EchoFilter;
use super::frame::Frame;
use super::incoming::Incoming;
use super::parameters::LinkParameters;
use super::transfer::{Arrival, LLC_RESPONSE, NeverSent, Outgoing, Reassembly};
use super::unnumbered::UiReassembler;
use crate::link::{Link, LinkError, LinkInput, LinkOutput};

/// Outputs that may wait for the owner. A flood of polls in one read would else be answered with far more octets than came
/// in; what comes beyond is lost, as on a noisy line.
const OUTPUTS_MAX: usize = 64;

/// One logical device of one physical device on a line that others may share.
///
/// It never returns an error: what a client does wrong is answered with FRMR or DM and ends that client's link only. An APDU
/// in UI, to this device or to all, is handed on whether or not a link is up; such an APDU must not be answered.
#[derive(Debug)]
pub struct HdlcServer {
    config: HdlcConfig,
    incoming: Incoming,
    echo: EchoFilter,
    push: UiReassembler,
    session: Option<Session>,
    outputs: VecDeque<LinkOutput>,
}

/// A link that is up.
#[derive(Debug)]
struct Session {
    client: ClientAddress,
    /// Our address in the form in which the client used it last.
    addressed_as: HdlcAddress,
    parameters: LinkParameters,
    outgoing: Outgoing,
    reassembly: Reassembly,
    /// The client polled and awaits an answer.
    is_polled: bool,
    /// No frame but SNRM has come yet.
    is_fresh: bool,
    drop_at: Duration,
}

/// Why FRMR: a flag of its third octet.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Rejection {
    /// W: the control field is unknown.
    Control = 0x01,
    /// Y: the information field is too long.
    TooLong = 0x04,
    /// Z: N(R) acknowledges what was never sent.
    Receive = 0x08,
}

impl HdlcServer {
    pub fn new(config: HdlcConfig) -> Self {
        Self {
            incoming: Incoming::default(),
            echo: EchoFilter::default(),
            push: UiReassembler::new(config.apdu_octets_max, PUSH_GAP_MAX),
            session: None,
            outputs: VecDeque::new(),
            config,
        }
    }

    /// Who is connected: different clients have different rights.
    pub fn client(&self) -> Option<ClientAddress> {
        self.session.as_ref().map(|session| session.client)
    }

    fn take_frames(&mut self, now: Duration) {
        let mut incoming = mem::take(&mut self.incoming);
        while let Some(frame) = incoming.next() {
            self.on_frame(now, &frame);
        }
        incoming.compact();
        self.incoming = incoming;
    }

    fn on_frame(&mut self, now: Duration, frame: &Frame<'_>) {
        let Some(client) = frame.source.client() else { return };
        let is_broadcast = frame.destination.is_broadcast_to(self.config.server);
        let to_us = is_broadcast || frame.destination.is_same_device(self.config.server);
        if !to_us || self.outputs.len() >= OUTPUTS_MAX || self.echo.is_echo(frame) {
            return;
        }
        if frame.control() == Some(Control::Ui) {
            if let Some(apdu) = self.push.accept(now, frame) {
                self.outputs.push_back(LinkOutput::Apdu(apdu));
            }
            return;
        }
        if is_broadcast {
            return;
        }
        if frame.control() == Some(Control::Snrm) {
            return self.on_snrm(now, frame, client);
        }
        let timeout = self.config.inactivity_timeout();
        let Some(session) = self.session.as_mut().filter(|session| session.client == client) else {
            // DISC, too, is answered so.
            if frame.poll_final() && !is_response(frame.control()) {
                self.respond(frame.destination, client, Control::Dm, &[]);
            }
            return;
        };
        session.addressed_as = frame.destination;
        session.drop_at = now + timeout;
        session.is_fresh = false;
        match frame.control() {
            Some(Control::Information { send, receive }) => self.on_information(frame, send, receive),
            Some(
                Control::ReceiveReady { receive } | Control::ReceiveNotReady { receive } | Control::Reject { receive },
            ) => self.on_supervisory(frame, receive),
            Some(Control::Disc) => {
                self.respond(frame.destination, client, Control::Ua, &[]);
                self.drop_session();
            }
            None => self.reject(frame, Rejection::Control),
            // Responses: an echo, or another server's.
            Some(Control::Snrm | Control::Ui | Control::Ua | Control::Dm | Control::Frmr) => {}
        }
    }

    fn on_snrm(&mut self, now: Duration, frame: &Frame<'_>, client: ClientAddress) {
        if self.client().is_some_and(|connected| connected != client) {
            return self.respond(frame.destination, client, Control::Dm, &[]);
        }
        let proposed = LinkParameters::decode(frame.information).unwrap_or_default();
        let parameters = self.config.parameters().agreed(proposed);
        let is_repeated =
            self.session.as_ref().is_some_and(|session| session.is_fresh && session.parameters == parameters);
        if !is_repeated {
            self.drop_session();
            self.outputs.push_back(LinkOutput::Connected);
        }
        self.session = Some(Session {
            client,
            addressed_as: frame.destination,
            parameters,
            outgoing: Outgoing::new(parameters),
            reassembly: Reassembly::new(parameters, self.config.apdu_octets_max),
            is_polled: false,
            is_fresh: true,
            drop_at: now + self.config.inactivity_timeout(),
        });
        let is_plain = frame.information.is_empty() && parameters == LinkParameters::default();
        let information = if is_plain { Vec::new() } else { parameters.encode() };
        self.respond(frame.destination, client, Control::Ua, &information);
    }

    fn on_information(&mut self, frame: &Frame<'_>, send: Sequence, receive: Sequence) {
        let Some(session) = &mut self.session else { return };
        if frame.information.len() > usize::from(session.parameters.information_receive_max) {
            return self.reject(frame, Rejection::TooLong);
        }
        if session.outgoing.acknowledge(receive) == Err(NeverSent) {
            return self.reject(frame, Rejection::Receive);
        }
        session.is_polled = frame.poll_final();
        match session.reassembly.accept(send, frame.segmented, frame.information) {
            // The answer is the owner's.
            Arrival::Apdu(apdu) => return self.outputs.push_back(LinkOutput::Apdu(apdu)),
            Arrival::TooLong => return self.reject(frame, Rejection::TooLong),
            Arrival::Segment | Arrival::Duplicate | Arrival::Gap => {}
        }
        if session.is_polled {
            self.answer();
        }
    }

    fn on_supervisory(&mut self, frame: &Frame<'_>, receive: Sequence) {
        let Some(session) = &mut self.session else { return };
        if session.outgoing.acknowledge(receive) == Err(NeverSent) {
            return self.reject(frame, Rejection::Receive);
        }
        if !frame.poll_final() {
            return;
        }
        if matches!(frame.control(), Some(Control::ReceiveNotReady { .. })) {
            let (control, to, client) = (session.ready(), session.addressed_as, session.client);
            session.is_polled = false;
            self.respond(to, client, control, &[]);
        } else {
            session.is_polled = true;
            self.answer();
        }
    }

    /// Takes our turn: all of the answer that is not acknowledged, as far as the window goes, else RR with what we have.
    fn answer(&mut self) {
        let Some(session) = &mut self.session else { return };
        session.is_polled = false;
        let (source, client) = (session.addressed_as, session.client);
        let ready = session.ready();
        if session.outgoing.is_finished() {
            return self.respond(source, client, ready, &[]);
        }
        let receive = session.reassembly.expected();
        let mut out = Vec::new();
        for segment in session.outgoing.window() {
            let control = Control::Information { send: segment.send, receive }.encode(segment.is_last);
            let (segmented, information) = (segment.segmented, segment.information);
            let frame = Frame { segmented, destination: client.into(), source, control, information };
            frame.encode(&mut out);
            self.echo.sent(&frame);
        }
        self.outputs.push_back(LinkOutput::Send(out));
    }

    fn respond(&mut self, source: HdlcAddress, client: ClientAddress, control: Control, information: &[u8]) {
        let control = control.encode(true);
        let frame = Frame { segmented: false, destination: client.into(), source, control, information };
        let mut out = Vec::new();
        frame.encode(&mut out);
        self.echo.sent(&frame);
        self.outputs.push_back(LinkOutput::Send(out));
    }

    /// FRMR: the rejected control field, V(R) and V(S), the reason. Nothing but SNRM mends it, so the link is down.
    /// A client that has not ended its turn is told with DM when it does.
    fn reject(&mut self, frame: &Frame<'_>, rejection: Rejection) {
        let Some(session) = &self.session else { return };
        let variables = session.reassembly.expected().value() << 5 | session.outgoing.next().value() << 1;
        let information = [frame.control, variables, rejection as u8];
        if frame.poll_final() {
            self.respond(session.addressed_as, session.client, Control::Frmr, &information);
        }
        self.drop_session();
    }

    fn drop_session(&mut self) {
        if self.session.take().is_some() {
            self.outputs.push_back(LinkOutput::Disconnected);
        }
    }
}

impl Session {
    fn ready(&self) -> Control {
        Control::ReceiveReady { receive: self.reassembly.expected() }
    }
}

fn is_response(control: Option<Control>) -> bool {
    matches!(control, Some(Control::Ua | Control::Dm | Control::Frmr))
}

impl Link for HdlcServer {
    fn connect(&mut self, _now: Duration) {}

    /// Goes out at once if the client polled, else with its next poll.
    fn send(&mut self, _now: Duration, apdu: &[u8]) -> Result<(), LinkError> {
        let session =
            self.session.as_mut().filter(|session| session.outgoing.is_finished()).ok_or(LinkError::NotReady)?;
        session.outgoing.load(LLC_RESPONSE, apdu);
        if session.is_polled {
            self.answer();
        }
        Ok(())
    }

    /// At once if the client polled, else with its next poll.
    fn acknowledge(&mut self, _now: Duration) {
        if self.session.as_ref().is_some_and(|session| session.is_polled) {
            self.answer();
        }
    }

    /// A server cannot say that it leaves: the client's next frame is answered with DM.
    fn disconnect(&mut self, _now: Duration) {
        self.drop_session();
    }

    fn handle(&mut self, now: Duration, input: LinkInput<'_>) -> Result<(), LinkError> {
        // First, so that a client that comes back after a long time is not taken for the link it left.
        if self.session.as_ref().is_some_and(|session| session.drop_at <= now) {
            self.drop_session();
        }
        if let LinkInput::Received(octets) = input {
            self.incoming.extend(now, octets);
            self.take_frames(now);
        }
        while self.incoming.deadline(self.config.inter_octet_timeout()).is_some_and(|at| at <= now) {
            self.incoming.give_up_one();
            self.take_frames(now);
        }
        Ok(())
    }

    fn poll(&mut self) -> LinkOutput {
        self.outputs.pop_front().unwrap_or_else(|| {
            let partial = self.incoming.deadline(self.config.inter_octet_timeout());
            let inactive = self.session.as_ref().map(|session| session.drop_at);
            LinkOutput::WaitUntil(inactive.into_iter().chain(partial).min())
        })
    }
}

#[cfg(test)]
mod tests;
