//! Two agents' streams on the loopback: what is told of one that ends, and how one is found among places that swallow
//! everything.

use std::sync::mpsc::Receiver;

use tokio::{task::yield_now, time::timeout};

use super::*;
use crate::{ids::PeerIx, node::joiner::StreamTo, wire::sealed::Kind};

const PEER: Whom = Whom::Peer(PeerIx(3));
const SOON: std::time::Duration = std::time::Duration::from_secs(3);

fn streams() -> (Streams, Receiver<Command>) {
    let (teller, commands) = Teller::heard();
    (Streams::new(teller, Vec::new()).unwrap(), commands)
}

/// A port that is free at both of these addresses.
fn free_port() -> u16 {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    taken.local_addr().unwrap().port()
}

fn at(last: u8, port: u16) -> Underlay {
    Underlay::new(([127, 0, 0, last], port).into())
}

fn dial(to: Vec<Underlay>) -> Dial {
    Dial {
        whom: PEER,
        to,
        header: Header {
            kind: Kind::Knock,
            epoch: 0,
            hint: [0; 8],
        },
        key: [7; 32],
    }
}

/// Lets in whoever comes first.
async fn let_one_in(server: &mut Streams) {
    match server.news().await {
        News::Judge { verdict, .. } => verdict.send(Verdict::Ours).unwrap(),
        other @ (News::Opened { .. } | News::Failed { .. } | News::Closed { .. }) => {
            panic!("somebody was to come: {other:?}")
        }
    }
}

#[tokio::test]
async fn when_a_listener_goes_its_streams_are_told_to_be_over() {
    let (mut server, commands) = streams();
    let (mut client, _ignored) = streams();
    let here = at(1, free_port());
    server.listen(&[here]).unwrap();
    client.dial(dial(vec![here]));
    let (opened, ()) = tokio::join!(client.news(), let_one_in(&mut server));
    assert!(matches!(opened, News::Opened { whom: PEER, .. }));
    let stood = loop {
        if let Ok(Command::OpenStream { stream, .. }) = commands.try_recv() {
            break stream;
        }
        yield_now().await;
    };
    server.listen(&[]).unwrap();
    let told = timeout(SOON, server.news()).await.unwrap();
    assert!(matches!(told, News::Closed { stream } if stream == stood));
    let is_close =
        |command: &Command| matches!(command, Command::CloseStream { stream } if *stream == stood);
    assert!(commands.try_iter().any(|command| is_close(&command)));
}

#[tokio::test]
async fn a_place_that_swallows_everything_keeps_nobody_from_the_next() {
    let port = free_port();
    let silent = TcpListener::bind(("127.0.0.2", port)).unwrap();
    let (mut server, _heard) = streams();
    let (mut client, _ignored) = streams();
    server.listen(&[at(1, port)]).unwrap();
    client.dial(dial(vec![at(2, port), at(1, port)]));
    let both = async { tokio::join!(client.news(), let_one_in(&mut server)) };
    let (opened, ()) = timeout(SOON, both).await.unwrap();
    assert!(matches!(opened, News::Opened { whom: PEER, .. }));
    drop(silent);
}

/// A dial of a join, when there is nobody yet who numbers peers.
fn dial_to_join(to: &TcpListener) -> Dial {
    let to = Underlay::new(to.local_addr().unwrap());
    Dial {
        whom: Whom::Joining(StreamTo::Member),
        ..dial(vec![to])
    }
}

#[tokio::test]
async fn what_came_of_a_dial_of_a_join_names_no_peer() {
    let (mut streams, _commands) = streams();
    let deaf = dial_to_join(&TcpListener::bind("127.0.0.1:0").unwrap());
    streams.dial(deaf);
    let News::Failed { whom, .. } = streams.news().await else {
        panic!("nobody listens there")
    };
    assert_eq!(whom, Whom::Joining(StreamTo::Member));
}

#[tokio::test]
async fn when_the_join_is_over_its_dials_are() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut streams, _commands) = streams();
    streams.dial(dial_to_join(&silent));
    streams.dial(dial_to_join(&silent));
    let kept = *streams.dialled.keys().next().unwrap();
    streams.end_all_but(Some(kept));
    assert_eq!(streams.dialled.keys().collect::<Vec<_>>(), [&kept]);
    streams.end_all_but(None);
    assert!(streams.dialled.is_empty());
}
