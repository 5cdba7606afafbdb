//! The WebSocket subprotocols of streaming requests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::api::status::ApiError;

/// Input of the command.
pub(super) const STDIN: u8 = 0;
/// Output of the command, or of its terminal.
pub(super) const STDOUT: u8 = 1;
/// Error output of the command.
pub(super) const STDERR: u8 = 2;
/// The Status at the end.
pub(super) const STATUS: u8 = 3;
/// Sizes of the terminal.
pub(super) const RESIZE: u8 = 4;
/// The client closes a channel (v5).
pub(super) const CLOSE: u8 = 255;

/// A subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    name: &'static str,
    base64: bool,
    /// A Status ends the stream (v4 and later).
    pub(super) status: bool,
}

const fn protocol(name: &'static str, base64: bool, status: bool) -> Protocol {
    Protocol {
        name,
        base64,
        status,
    }
}

const KNOWN: [Protocol; 5] = [
    protocol("v5.channel.k8s.io", false, true),
    protocol("v4.channel.k8s.io", false, true),
    protocol("v4.base64.channel.k8s.io", true, true),
    protocol("channel.k8s.io", false, false),
    protocol("base64.channel.k8s.io", true, false),
];

impl Protocol {
    /// The first offered protocol that is known; plain channels if none is offered.
    ///
    /// # Errors
    /// 403 if only unknown ones are offered.
    pub(super) fn choose<'a>(offered: impl Iterator<Item = &'a str>) -> Result<Self, ApiError> {
        let mut any = false;
        for name in offered.flat_map(|list| list.split(',')).map(str::trim) {
            any = true;
            if let Some(known) = KNOWN.into_iter().find(|known| known.name == name) {
                return Ok(known);
            }
        }
        if any {
            Err(ApiError::new(
                403,
                "Forbidden",
                "none of the offered WebSocket protocols is supported; offer v5.channel.k8s.io",
            ))
        } else {
            Ok(protocol("", false, false))
        }
    }

    /// Name for the handshake, empty if none was offered.
    pub(super) fn name(self) -> &'static str {
        self.name
    }

    /// A message with data of a channel.
    pub(super) fn encode(self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            Message::text(format!(
                "{}{}",
                char::from(b'0' + channel),
                STANDARD.encode(data)
            ))
        } else {
            let mut frame = Vec::with_capacity(data.len() + 1);
            frame.push(channel);
            frame.extend_from_slice(data);
            Message::binary(frame)
        }
    }

    /// Channel and data of a message; `None` for messages without either.
    pub(super) fn decode(self, message: Message) -> Option<(u8, Bytes)> {
        match message {
            Message::Binary(frame) if !self.base64 => {
                let channel = *frame.first()?;
                Some((channel, frame.slice(1..)))
            }
            Message::Text(frame) if self.base64 => {
                let channel = frame.as_bytes().first()?.checked_sub(b'0')?;
                let data = STANDARD.decode(frame.as_bytes().get(1..)?).ok()?;
                Some((channel, data.into()))
            }
            _ => None,
        }
    }
}

/// The Status for an exit code; `None` if the command's end is not known.
pub(super) fn exit_status(code: Option<i32>) -> Value {
    match code {
        Some(0) => json!({"metadata": {}, "status": "Success"}),
        Some(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!(
                "command terminated with non-zero exit code: command terminated with exit code {code}"
            ),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        None => json!({
            "metadata": {},
            "status": "Failure",
            "message": "the command was lost before it ended",
            "reason": "InternalError",
            "code": 500,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_z1_the_first_known_protocol_is_chosen() {
        for (offered, expected) in [
            (
                &["v5.channel.k8s.io, v4.channel.k8s.io"][..],
                Some("v5.channel.k8s.io"),
            ),
            (&["v4.channel.k8s.io"], Some("v4.channel.k8s.io")),
            (&["bogus", "channel.k8s.io"], Some("channel.k8s.io")),
            (
                &["v4.base64.channel.k8s.io"],
                Some("v4.base64.channel.k8s.io"),
            ),
            (&[], Some("")),
            (&["bogus"], None),
        ] {
            let chosen = Protocol::choose(offered.iter().copied());
            assert_eq!(
                chosen.as_ref().ok().map(|p| p.name()),
                expected,
                "{offered:?}"
            );
            if let Err(error) = chosen {
                assert_eq!(error.code, 403);
            }
        }
    }

    #[test]
    fn cluster_z1_messages_carry_channel_and_data() {
        for name in ["v5.channel.k8s.io", "v4.base64.channel.k8s.io"] {
            let protocol = Protocol::choose([name].into_iter()).expect("known");
            let message = protocol.encode(STDOUT, b"hi\n");
            assert_eq!(
                protocol.decode(message),
                Some((STDOUT, Bytes::from_static(b"hi\n")))
            );
        }
        let base64 = Protocol::choose(["v4.base64.channel.k8s.io"].into_iter()).expect("known");
        assert_eq!(base64.encode(STDOUT, b"hi\n"), Message::text("1aGkK"));
    }
}
