//! Handshakes of QUIC (RFC 9001) with the settings that TCP's are made with, by the name that the client
//! asks for.
//!
//! With TCP rustls waits for the settings until the name is known; with QUIC it wants them first. So a
//! session begins with a stand-in, which knows no more than the keys that everybody knows, keeps the
//! client's first message until all of it is there, and then gives it to a session with the right
//! settings.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use quinn::crypto::rustls::QuicServerConfig;
use quinn::crypto::{
    ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectionId, Side, TransportError, TransportErrorCode, crypto};
use rustls::ServerConfig;
use rustls::server::Acceptor;

use crate::tls::{ServerConfigs, TlsError};

/// What is agreed on (ALPN; RFC 9114, 3.1).
const PROTOCOL: &[u8] = b"h3";

/// The longest first message. A usual one has 200 to 2,000 bytes.
const LONGEST: usize = 16 * 1024;

/// Its message type, and the bytes in front of it (RFC 8446, 4).
const CLIENT_HELLO: u8 = 1;
const MESSAGE_HEAD: usize = 4;

/// The head of a record with a handshake (RFC 8446, 5.1), without its length.
const RECORD: [u8; 3] = [22, 3, 1];

/// Alerts (RFC 8446, 6).
const UNEXPECTED_MESSAGE: u8 = 10;
const DECODE_ERROR: u8 = 50;
const PROTOCOL_VERSION: u8 = 70;
const INTERNAL_ERROR: u8 = 80;
const UNRECOGNIZED_NAME: u8 = 112;

/// The settings of all handshakes.
pub(super) struct Handshakes {
    configs: Arc<ServerConfigs>,
    /// For what does not depend on the name.
    common: Arc<QuicServerConfig>,
    /// Made from those for TCP, for as long as those are in use: one for hosts that ask clients for
    /// nothing, one for each policy about certificates of clients.
    known: Mutex<Vec<(Weak<ServerConfig>, Arc<QuicServerConfig>)>>,
}

impl Handshakes {
    /// With the settings of the HTTPS listener.
    ///
    /// # Errors
    /// [`TlsError::Rustls`].
    pub(super) fn new(configs: Arc<ServerConfigs>) -> Result<Self, TlsError> {
        let common = for_quic(&configs.for_version_13())?;
        Ok(Self {
            configs,
            common,
            known: Mutex::default(),
        })
    }

    /// A session for a client that asks for this name.
    fn choose(&self, name: Option<&str>) -> Result<Arc<QuicServerConfig>, TransportError> {
        if self.configs.passthrough(name).is_some() {
            let reason = "connections for the name end at its backend, which has TCP only";
            return Err(alert(UNRECOGNIZED_NAME, reason));
        }
        let config = self
            .configs
            .choose_for_quic(name)
            .map_err(|error| match error {
                TlsError::UnknownName => alert(UNRECOGNIZED_NAME, "unrecognized name"),
                error => alert(INTERNAL_ERROR, error),
            })?;
        // quinn would panic, and take the process with it.
        let config = config.ok_or_else(|| alert(PROTOCOL_VERSION, "TLS 1.3 is off"))?;
        // Nothing that could panic half-way is done under the lock.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let made = known
            .iter()
            .find(|(of, _)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(&config)));
        if let Some((_, made)) = made {
            return Ok(Arc::clone(made));
        }
        let made = for_quic(&config).map_err(|error| alert(INTERNAL_ERROR, error))?;
        known.retain(|(of, _)| of.strong_count() > 0);
        known.push((Arc::downgrade(&config), Arc::clone(&made)));
        Ok(made)
    }
}

/// The same settings for QUIC. Early data is off in them.
fn for_quic(config: &ServerConfig) -> Result<Arc<QuicServerConfig>, TlsError> {
    let mut config = config.clone();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    let made = QuicServerConfig::try_from(config);
    made.map(Arc::new)
        .map_err(|error| TlsError::Rustls(rustls::Error::General(error.to_string())))
}

fn alert(code: u8, reason: impl ToString) -> TransportError {
    TransportError {
        code: TransportErrorCode::crypto(code),
        frame: None,
        reason: reason.to_string(),
    }
}

impl crypto::ServerConfig for Handshakes {
    fn initial_keys(
        &self,
        version: u32,
        dst_cid: &ConnectionId,
    ) -> Result<Keys, UnsupportedVersion> {
        self.common.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.common.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(
        self: Arc<Self>,
        version: u32,
        params: &TransportParameters,
    ) -> Box<dyn crypto::Session> {
        let inner = Arc::clone(&self.common).start_session(version, params);
        Box::new(Session {
            inner,
            hello: Some(Hello {
                handshakes: self,
                version,
                params: *params,
                bytes: Vec::new(),
            }),
        })
    }
}

/// A session, or a stand-in for one.
struct Session {
    inner: Box<dyn crypto::Session>,
    /// What is missing for the right one.
    hello: Option<Hello>,
}

struct Hello {
    handshakes: Arc<Handshakes>,
    version: u32,
    params: TransportParameters,
    bytes: Vec<u8>,
}

impl Hello {
    /// The message is complete.
    fn is_whole(&self) -> Result<bool, TransportError> {
        let Some(head) = self.bytes.first_chunk::<MESSAGE_HEAD>() else {
            return Ok(false);
        };
        let [kind, length @ ..] = *head;
        if kind != CLIENT_HELLO {
            return Err(alert(UNEXPECTED_MESSAGE, "not a ClientHello"));
        }
        let [a, b, c] = length.map(usize::from);
        let length = MESSAGE_HEAD + (a << 16 | b << 8 | c);
        if length > LONGEST {
            return Err(alert(DECODE_ERROR, "the ClientHello is too long"));
        }
        Ok(self.bytes.len() >= length)
    }

    /// A session with the right settings.
    fn start(&self) -> Result<Box<dyn crypto::Session>, TransportError> {
        let unread = |error: rustls::Error| alert(DECODE_ERROR, error);
        let mut record = Vec::with_capacity(self.bytes.len() + 5);
        record.extend_from_slice(&RECORD);
        let length = u16::try_from(self.bytes.len()).unwrap_or(u16::MAX);
        record.extend_from_slice(&length.to_be_bytes());
        record.extend_from_slice(&self.bytes);
        let mut acceptor = Acceptor::default();
        acceptor
            .read_tls(&mut record.as_slice())
            .map_err(|error| alert(DECODE_ERROR, error))?;
        let accepted = acceptor.accept().map_err(|(error, _)| unread(error))?;
        let Some(accepted) = accepted else {
            return Err(alert(DECODE_ERROR, "the ClientHello is not complete"));
        };
        let config = self
            .handshakes
            .choose(accepted.client_hello().server_name())?;
        Ok(crypto::ServerConfig::start_session(
            config,
            self.version,
            &self.params,
        ))
    }
}

impl crypto::Session for Session {
    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let Some(hello) = &mut self.hello else {
            return self.inner.read_handshake(bytes);
        };
        if hello.bytes.len() + bytes.len() > LONGEST {
            return Err(alert(DECODE_ERROR, "the ClientHello is too long"));
        }
        hello.bytes.extend_from_slice(bytes);
        if !hello.is_whole()? {
            return Ok(false);
        }
        self.inner = hello.start()?;
        let bytes = std::mem::take(&mut hello.bytes);
        self.hello = None;
        self.inner.read_handshake(&bytes)
    }

    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.inner.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        self.inner.write_handshake(buf)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.inner.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}
