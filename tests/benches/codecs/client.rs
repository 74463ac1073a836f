//! A load profile read by a client beside the one of `dlms-cosem-rs`: association, blocks, values, release; in clear, and with high
//! level security 5, suite 0.
//!
//! What the meter answers is recorded before, since both draw the same challenge each time: only the clients are measured.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dlms_cosem_rs::acse::AuthMechanism;
use dlms_cosem_rs::client as theirs;
use dlms_cosem_rs::codec::Encode as _;
use dlms_cosem_rs::obis::Obis;
use dlms_cosem_rs::security as their_security;
use dlms_cosem_rs::transport::wrapper::{StreamReassembler, Wpdu};
use dlms_cosem_rs::xdlms::AttributeDescriptor;
use protocols::dlms::apdu::{CosemAttribute, DataAccessResult};
use protocols::dlms::client::{Authentication, ClientConfig, ClientEvent, ClientOutput, ClientSession};
use protocols::dlms::security::{
    Challenge, Ciphered, CipheredConfig, Counter, HighLevel, Key, Keys, Level, Plain, Protection, ReceivedCounters,
    SystemTitle,
};
use protocols::dlms::server::{
    ClientRole, HighLevelClient, ObjectServer, ServerConfig, ServerConnection, ServerOutput, ServerSession,
};
use protocols::link::LinkInput;
use protocols::metering::ObisCode;
use protocols::wrapper::{WrapperClient, WrapperConfig, WrapperServer};
use tests::measure::note;

use crate::beside::{Limit, Work};
use crate::dlms;

const TIMES: usize = 500;
const NOW: Duration = Duration::ZERO;

const CLIENT_WPORT: u8 = 0x20;
const SERVER_WPORT: u16 = 1;
const PROFILE: CosemAttribute = CosemAttribute::new(7, ObisCode::new(1, 0, 99, 1, 0, 255), 2);

const CLIENT_TITLE: [u8; 8] = *b"CLI\x00\x00\x00\x00\x01";
const SERVER_TITLE: [u8; 8] = *b"SRV\x00\x00\x00\x00\x01";
const CIPHER_KEY: [u8; 16] = [0x10; 16];
const AUTHENTICATION_KEY: [u8; 16] = [0x30; 16];
/// Every octet of the challenges.
const CLIENT_CHALLENGE: u8 = 0xc1;
const SERVER_CHALLENGE: u8 = 0x5e;

/// A meter that has nothing but a load profile.
struct Profile(Vec<u8>);

impl ObjectServer for Profile {
    fn read(&mut self, attribute: CosemAttribute, _selection: Option<&[u8]>) -> Result<Vec<u8>, DataAccessResult> {
        if attribute == PROFILE { Ok(self.0.clone()) } else { Err(DataAccessResult::ObjectUndefined) }
    }
}

/// What it says, kept.
struct Recorder<P: Protection> {
    connection: ServerConnection<WrapperServer, P>,
    profile: Profile,
    answers: Vec<Vec<u8>>,
}

impl<P: Protection> Recorder<P> {
    fn new(config: ServerConfig, protection: P) -> Result<Self> {
        let link = WrapperServer::new(WrapperConfig::new(CLIENT_WPORT.into(), SERVER_WPORT));
        let mut session = ServerSession::with_protection(config, protection);
        session.set_challenge(Challenge::new([SERVER_CHALLENGE; Challenge::LEN])?);
        let mut connection = ServerConnection::new(link, session);
        let mut profile = Profile(dlms::buffer());
        connection.connect(NOW, &mut profile)?;
        Ok(Self { connection, profile, answers: Vec::new() })
    }

    fn answer(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        self.connection.handle(NOW, LinkInput::Received(request), &mut self.profile)?;
        let mut answer = Vec::new();
        loop {
            match self.connection.poll() {
                ServerOutput::Send(octets) => answer.extend(octets),
                ServerOutput::Event(_) => {}
                ServerOutput::WaitUntil(_) => break,
            }
        }
        self.answers.push(answer.clone());
        Ok(answer)
    }
}

/// How an association is protected, in the words of all three.
trait Way {
    type Protection: Protection;
    const NAME: &'static str;

    fn meter() -> Result<Recorder<Self::Protection>>;
    fn ours() -> Result<ClientSession<WrapperClient, Self::Protection>>;
    fn theirs() -> TheirClient;
}

type TheirClient = theirs::ClientSession<their_security::RustCryptoProvider<their_security::FixedRandom>>;

struct InClear;

impl Way for InClear {
    type Protection = Plain;
    const NAME: &'static str = "DLMS client reads 1,000 rows in clear";

    fn meter() -> Result<Recorder<Plain>> {
        Recorder::new(ServerConfig::default(), Plain)
    }

    fn ours() -> Result<ClientSession<WrapperClient, Plain>> {
        Ok(our_client(Authentication::None, Plain))
    }

    fn theirs() -> TheirClient {
        their_client(theirs::ClientConfig::default())
    }
}

struct Secured;

impl Way for Secured {
    type Protection = Ciphered;
    const NAME: &'static str = "the same authenticated and encrypted, HLS 5, suite 0";

    fn meter() -> Result<Recorder<Ciphered>> {
        let minimum = Level::AUTHENTICATED_ENCRYPTED;
        let client = HighLevelClient { role: ClientRole::Reader, how: HighLevel::Gmac, title: None, minimum };
        let config = ServerConfig { public_client: false, high_level: vec![client], ..ServerConfig::default() };
        let counter = Counter::reserved(1, 10_000);
        Recorder::new(config, Ciphered::server(ciphering(SERVER_TITLE), counter, ReceivedCounters::default())?)
    }

    fn ours() -> Result<ClientSession<WrapperClient, Ciphered>> {
        let challenge = Challenge::new([CLIENT_CHALLENGE; Challenge::LEN])?;
        let counter = Counter::reserved(1, 10_000);
        let protection = Ciphered::client(ciphering(CLIENT_TITLE), counter, ReceivedCounters::default())?;
        Ok(our_client(Authentication::High { how: HighLevel::Gmac, challenge }, protection))
    }

    fn theirs() -> TheirClient {
        their_client(theirs::ClientConfig {
            system_title: Some(their_security::SystemTitle::new(CLIENT_TITLE)),
            mechanism: AuthMechanism::HighGmac,
            security: their_security::SecurityPolicy::authenticated_encrypted(their_security::SecuritySuite::Suite0),
            ..theirs::ClientConfig::default()
        })
    }
}

fn ciphering(title: [u8; 8]) -> CipheredConfig {
    let (cipher, authentication) = (Key::from(CIPHER_KEY), Key::from(AUTHENTICATION_KEY));
    let keys = Keys { unicast: Some(cipher), authentication: Some(authentication), ..Keys::default() };
    let level = Level::AUTHENTICATED_ENCRYPTED;
    CipheredConfig { level, minimum: level, ..CipheredConfig::new(keys, SystemTitle(title)) }
}

fn our_client<P: Protection>(authentication: Authentication, protection: P) -> ClientSession<WrapperClient, P> {
    let link = WrapperClient::new(WrapperConfig::new(CLIENT_WPORT.into(), SERVER_WPORT));
    ClientSession::with_protection(link, ClientConfig { authentication, ..ClientConfig::default() }, protection)
}

fn their_client(config: theirs::ClientConfig) -> TheirClient {
    let keys = their_security::KeyRing::new(CIPHER_KEY, AUTHENTICATION_KEY);
    let random = their_security::FixedRandom(CLIENT_CHALLENGE);
    let max_pdu_size = ClientConfig::MAX_RECEIVE_PDU_SIZE;
    let config = theirs::ClientConfig { client_sap: CLIENT_WPORT, max_pdu_size, ..config };
    theirs::ClientSession::new(config, their_security::RustCryptoProvider::with_rng(keys, random))
}

/// One conversation of our client, each request answered by `line`; the sum of all that was read.
fn our_read<'m, P: Protection>(
    mut client: ClientSession<WrapperClient, P>,
    mut line: impl FnMut(&[u8]) -> Result<Cow<'m, [u8]>>,
) -> Result<i64> {
    client.associate(NOW)?;
    client.get(NOW, PROFILE, None)?;
    client.release(NOW)?;
    let (mut answer, mut buffer) = (None, None);
    loop {
        match client.poll() {
            ClientOutput::Send(request) => answer = Some(line(&request)?),
            ClientOutput::WaitUntil(_) => {
                let answer = answer.take().context("nothing was asked")?;
                client.handle(NOW, LinkInput::Received(&answer))?;
            }
            ClientOutput::Event(ClientEvent::Associated(_)) => {}
            ClientOutput::Event(ClientEvent::Value { value, .. }) => buffer = Some(value.data),
            ClientOutput::Event(ClientEvent::Released) => return dlms::ours(&buffer.context("no profile was read")?),
            ClientOutput::Event(other) => bail!("{other:?}"),
        }
    }
}

/// What their client works in: it takes buffers of its owner.
struct Buffers {
    request: Vec<u8>,
    framed: Vec<u8>,
    apdu: Vec<u8>,
    value: Vec<u8>,
}

/// The same by their client.
fn their_read<'m>(
    mut client: TheirClient,
    Buffers { request, framed, apdu, value }: &mut Buffers,
    mut line: impl FnMut(&[u8]) -> Result<Cow<'m, [u8]>>,
) -> Result<i64> {
    let mut exchange = |request: &[u8]| -> Result<Cow<'m, [u8]>> {
        framed.clear();
        Wpdu::new(CLIENT_WPORT.into(), SERVER_WPORT, request)?.encode(framed)?;
        line(framed)
    };
    let length = client.associate_request(request)?;
    let mut step = client.handle_associate_response(unwrapped(&exchange(&request[..length])?)?)?;
    if step == theirs::AssociationStep::HlsReplyRequired {
        let length = client.hls_reply_request(request)?;
        step = client.handle_hls_reply_response(unwrapped(&exchange(&request[..length])?)?)?;
    }
    ensure!(step == theirs::AssociationStep::Established, "{step:?}");
    let descriptor = AttributeDescriptor::new(PROFILE.class_id, Obis(PROFILE.obis.0), PROFILE.attribute);
    let mut length = client.get_request(descriptor, None, request)?;
    let mut collector = theirs::BlockCollector::new(value);
    loop {
        match client.handle_response(unwrapped(&exchange(&request[..length])?)?, apdu)? {
            theirs::Response::Block { last, number, data } => {
                collector.push(number, data)?;
                if last {
                    break;
                }
                length = client.get_next_block_request(number, request)?;
            }
            other => bail!("{other:?}"),
        }
    }
    let length = client.release_request(request)?;
    let released = client.handle_response(unwrapped(&exchange(&request[..length])?)?, apdu)?;
    ensure!(released == theirs::Response::Released, "{released:?}");
    dlms::theirs(&collector.value()?)
}

fn unwrapped(octets: &[u8]) -> Result<&[u8]> {
    let (wpdu, _) = StreamReassembler::new(0).next_pdu(octets)?.context("half an answer")?;
    Ok(wpdu.apdu)
}

fn compare<W: Way>() -> Result<()> {
    let mut buffers = Buffers {
        request: vec![0; 1_024],
        framed: Vec::new(),
        apdu: vec![0; usize::from(ClientConfig::MAX_RECEIVE_PDU_SIZE)],
        value: vec![0; 65_536],
    };
    let (mut to_us, mut to_them) = (W::meter()?, W::meter()?);
    our_read(W::ours()?, |request| to_us.answer(request).map(Cow::Owned))?;
    their_read(W::theirs(), &mut buffers, |request| to_them.answer(request).map(Cow::Owned))?;
    let (to_us, to_them) = (to_us.answers, to_them.answers);
    ensure!(to_us.len() == to_them.len(), "{} and {} answers", to_us.len(), to_them.len());
    Work { name: W::NAME, peer: "dlms-cosem-rs", piece: "profile", pieces: 1, times: TIMES, limit: Limit::Time(0.95) }
        .measure(
            || {
                let mut answers = to_us.iter();
                our_read(W::ours()?, |_| next(&mut answers))
            },
            || {
                let mut answers = to_them.iter();
                their_read(W::theirs(), &mut buffers, |_| next(&mut answers))
            },
        )
}

/// What was recorded, again.
fn next<'m>(answers: &mut std::slice::Iter<'m, Vec<u8>>) -> Result<Cow<'m, [u8]>> {
    let answer = answers.next().context("more is asked than was recorded")?;
    Ok(Cow::Borrowed(answer))
}

pub(crate) fn run() -> Result<()> {
    compare::<InClear>()?;
    compare::<Secured>()?;
    Ok(note(&format!(
        "DLMS client: association, {} rows in blocks of {} octets over the wrapper, each label an instant and each cell an \
         integer, release. Answers are recorded: no meter and no line is in the times.",
        dlms::ROWS,
        ClientConfig::MAX_RECEIVE_PDU_SIZE,
    ))?)
}
