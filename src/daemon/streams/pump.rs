//! Carries datagrams both ways on a stream that stands, until either side has enough.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{Semaphore, mpsc},
    time::timeout,
};

use crate::{
    datapath::{Teller, command::Command},
    ids::StreamIx,
    wire::stream,
};

/// Datagrams that wait to be written. What is above it is dropped: TCP below is slower than what is sent, and old packets
/// help nobody.
const QUEUE: usize = 256;

/// What is read at one time: as much as TLS puts in one record.
const READ: usize = 16 << 10;

/// So many times that wait to be taken in. What is above it stays in the socket.
const READS: usize = 16;

/// A stream on which nothing is written or read for so long is closed: the agent behind it asks for its links every 25 s.
pub(super) const IDLE: Duration = Duration::from_secs(120);

/// Datagrams that are written with one system call, if they wait.
const BATCH: usize = 32;

/// Carries datagrams until the stream ends. It ends also where this side has nothing to say: at first within
/// `answer_within`, since a stream without a session is of use to nobody.
pub(super) async fn run<S: AsyncRead + AsyncWrite>(
    (stream, answer_within): (S, Duration),
    number: StreamIx,
    teller: &Teller,
) {
    let (queue, waiting) = mpsc::channel(QUEUE);
    teller.send(Command::OpenStream {
        stream: number,
        queue,
    });
    let (reader, writer) = tokio::io::split(stream);
    // Either end means both.
    let _over = tokio::select! {
        read = read_all(reader, number, teller) => read,
        written = write_all(writer, waiting, answer_within) => written,
    };
}

async fn read_all(
    mut reader: impl AsyncRead + Unpin,
    number: StreamIx,
    teller: &Teller,
) -> io::Result<()> {
    let taken_in = Arc::new(Semaphore::new(READS));
    let mut read = Vec::new();
    loop {
        read.reserve(READ);
        if timeout(IDLE, reader.read_buf(&mut read)).await?? == 0 {
            return Ok(());
        }
        let whole = whole(&read)?;
        if whole == 0 {
            continue;
        }
        let part = read.split_off(whole);
        let datagrams = std::mem::replace(&mut read, part);
        let permit = Arc::clone(&taken_in).acquire_owned().await;
        let permit = permit.map_err(io::Error::other)?;
        teller.send(Command::FromStream {
            stream: number,
            datagrams,
            permit,
        });
    }
}

/// How many bytes of what was read are datagrams as a whole.
fn whole(read: &[u8]) -> io::Result<usize> {
    let mut rest = read;
    let too_long = |_malformed| io::Error::from(io::ErrorKind::InvalidData);
    while let Some(_datagram) = stream::take(&mut rest).map_err(too_long)? {}
    Ok(read.len() - rest.len())
}

async fn write_all(
    mut writer: impl AsyncWrite + Unpin,
    mut waiting: mpsc::Receiver<Vec<u8>>,
    answer_within: Duration,
) -> io::Result<()> {
    let mut patience = answer_within;
    let mut batch = Vec::with_capacity(BATCH);
    let mut out = Vec::new();
    while timeout(patience, waiting.recv_many(&mut batch, BATCH)).await? > 0 {
        patience = IDLE;
        out.clear();
        for datagram in batch.drain(..) {
            // What is too long for a stream was too long for every path.
            let _dropped = stream::frame(&datagram, &mut out);
        }
        timeout(IDLE, writer.write_all(&out)).await??;
        timeout(IDLE, writer.flush()).await??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_one_read_gave_is_one_command_and_parts_wait_for_the_rest() {
        let (teller, commands) = Teller::heard();
        let mut written = Vec::new();
        for datagram in [&[1; 100][..], &[2; 1400], &[3; 60]] {
            stream::frame(datagram, &mut written).unwrap();
        }
        let (first, second) = written.split_at(written.len() - 10);
        let reads = first.chain(second);
        read_all(reads, StreamIx(7), &teller).await.unwrap();
        let mut taken = Vec::new();
        for command in commands.try_iter() {
            let Command::FromStream { datagrams, .. } = command else {
                panic!("nothing else is told")
            };
            taken.push(datagrams);
        }
        assert_eq!(taken.len(), 2);
        assert_eq!(taken.concat(), written);
    }

    #[tokio::test]
    async fn a_datagram_that_is_too_long_ends_the_stream() {
        let (teller, _commands) = Teller::heard();
        let ended = read_all(&[0xff; 9][..], StreamIx(7), &teller).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_stream_on_which_this_side_says_nothing_is_over() {
        let (ours, _theirs) = tokio::io::duplex(1024);
        let (_queue, waiting) = mpsc::channel(1);
        assert!(write_all(ours, waiting, SOON).await.is_err());
    }

    #[tokio::test]
    async fn one_on_which_it_answered_stays() {
        let (ours, _theirs) = tokio::io::duplex(1024);
        let (queue, waiting) = mpsc::channel(1);
        queue.send(vec![1]).await.unwrap();
        let over = timeout(SOON * 5, write_all(ours, waiting, SOON)).await;
        assert!(over.is_err(), "{over:?}");
    }
}
