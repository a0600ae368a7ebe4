//! The ways of a running network beside its UDP socket: TLS streams, and the slots of the DHT.

use super::{
    network::Network,
    streams::{self, Verdict, Whom},
};
use crate::{
    node::{StreamEvent, input::Input, meeting::DhtUse},
    platform::clock,
    rendezvous::Answer,
    wire::sealed::Kind,
};

impl Network {
    /// Takes in what happened on the TLS streams.
    pub(super) fn on_stream_news(&mut self, news: streams::News) {
        let now = clock::now();
        let event = match news {
            streams::News::Judge {
                stream,
                from,
                preamble,
                binding,
                verdict,
            } => {
                let keys = self.node.stream_keys(now, &preamble.header);
                let is_ours = keys.iter().any(|key| preamble.is_by(key, &binding));
                self.count(if is_ours {
                    "stream_taken"
                } else {
                    "stream_stranger"
                });
                let said = if is_ours {
                    Verdict::Ours
                } else {
                    Verdict::Stranger
                };
                let _gone_meanwhile = verdict.send(said);
                if said == Verdict::Stranger {
                    return;
                }
                match preamble.header.kind {
                    Kind::Introduce => StreamEvent::Introducing { stream, from },
                    Kind::Knock | Kind::Join | Kind::Beacon | Kind::Punch => {
                        StreamEvent::Taken { from }
                    }
                }
            }
            streams::News::Opened {
                whom: Whom::Peer(peer),
                stream,
                host,
            } => StreamEvent::Opened { peer, stream, host },
            streams::News::Failed {
                whom: Whom::Peer(peer),
                ..
            } => StreamEvent::Failed { peer },
            // It was for the join, which is over: its news was on the way already.
            streams::News::Opened {
                whom: Whom::Joining(_),
                stream,
                ..
            } => return self.streams.hang_up(stream),
            streams::News::Failed {
                whom: Whom::Joining(_),
                ..
            } => return,
            streams::News::Closed { stream } => StreamEvent::Closed { stream },
        };
        self.node.handle_input(now, Input::Stream(event));
    }

    /// Takes in what the DHT answered.
    pub(super) fn on_slot_answer(&mut self, answer: Answer) {
        let input = Input::Slot(answer);
        self.node.handle_input(clock::now(), input);
    }

    /// Tells the node whether there is a DHT to ask.
    pub(super) fn tell_dht(&mut self) {
        let dht = match self.dht.is_on() {
            true => DhtUse::On,
            false => DhtUse::Off,
        };
        self.node.use_dht(clock::now(), dht);
    }

    /// Listens for TLS while others may reach this machine. A port that is taken is tried again each second: its owner may
    /// go.
    pub(super) fn tend_streams(&mut self) {
        let addresses = match self.node.offers_streams() {
            true => self.node.interfaces(),
            false => &[],
        };
        let missing = self.streams.listen(addresses).err();
        let missing = missing.map(|error| error.to_string());
        if missing != self.facts.streams_missing {
            let port = self.facts.port;
            match &missing {
                Some(error) => tracing::warn!(error, port, "TLS streams cannot be taken"),
                None => tracing::info!(port, "TLS streams can be taken again"),
            }
            self.facts.streams_missing = missing;
        }
    }
}
