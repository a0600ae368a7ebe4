//! Sockets of this host's loopback.

use super::*;

fn all(socket: &mut Socket) -> Vec<(SocketAddr, Vec<u8>, Cut)> {
    let mut seen = Vec::new();
    let mut came = Came::Full;
    while came == Came::Full || !seen.is_empty() {
        let before = seen.len();
        came = socket
            .receive(|received| {
                let all = received.datagrams();
                seen.extend(all.map(|one| (received.source, one.to_vec(), received.cut)));
            })
            .unwrap();
        if seen.len() == before {
            break;
        }
    }
    seen
}

fn to(to: SocketAddr, bytes: &[u8]) -> Outgoing<'_> {
    Outgoing { to, bytes, ecn: 0 }
}

/// A socket that is sent to at the address, and one that sends.
fn pair(at: &str) -> (SocketAddr, Socket, Socket) {
    let [there, from] = [(); 2].map(|()| Socket::bind(at.parse().unwrap()).unwrap());
    let address = SockRef::from(&there.fd).local_addr().unwrap();
    (address.as_socket().unwrap(), there, from)
}

const FAMILIES: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

#[test]
fn a_batch_longer_than_one_call_arrives_whole_and_in_order() {
    let (address, mut there, mut from) = pair(FAMILIES[0]);
    let datagrams: Vec<Vec<u8>> = (0..150u8).map(|i| vec![i; usize::from(i) + 1]).collect();
    assert_eq!(
        from.send(datagrams.iter().map(|d| to(address, d))).refused,
        0
    );
    let seen = all(&mut there);
    assert_eq!(
        seen.iter().map(|s| s.1.clone()).collect::<Vec<_>>(),
        datagrams
    );
    assert!(
        seen.iter()
            .all(|s| s.0.port() == from.port().unwrap() && s.2 == Cut::Whole)
    );
}

#[test]
fn batches_go_out_and_come_in_without_an_allocation() {
    for (at, trains) in FAMILIES.into_iter().zip([false, true]) {
        let (at, mut there, mut from) = pair(at);
        if trains {
            from.send_trains(true);
            there.receive_trains().unwrap();
        }
        let mut came = 0;
        let asked = crate::platform::allocation::asked_by(|| {
            assert_eq!(from.send([to(at, &[7; 1400]); 150].into_iter()).refused, 0);
            let mut more = Came::Full;
            while more == Came::Full {
                let count =
                    |all: Received<'_>| came += all.datagrams().map(<[u8]>::len).sum::<usize>();
                more = there.receive(count).unwrap();
            }
        });
        assert_eq!((asked, came), (0, 150 * 1400));
    }
}

#[test]
fn trains_bring_every_datagram_in_its_order_whatever_stands_beside_them() {
    for at in FAMILIES {
        for receiving in [false, true] {
            let (at, mut there, mut from) = pair(at);
            from.send_trains(true);
            if receiving {
                there.receive_trains().unwrap();
            }
            let lens = [
                vec![1400; 45],
                vec![1400, 7, 1400, 1400, 90],
                vec![1, 1, 2, 1, 1452],
                vec![1452; 100],
                vec![60; 70],
            ];
            let datagrams: Vec<Vec<u8>> = lens
                .concat()
                .into_iter()
                .enumerate()
                .map(|(i, len)| vec![u8::try_from(i % 256).unwrap(); len])
                .collect();
            assert_eq!(
                from.send(datagrams.iter().map(|one| to(at, one))).refused,
                0
            );
            let seen: Vec<Vec<u8>> = all(&mut there).into_iter().map(|one| one.1).collect();
            assert_eq!(seen, datagrams);
            assert_eq!(from.trains(), Trains::On);
        }
    }
}

#[test]
fn a_last_train_with_room_stays_for_what_comes_next_and_a_full_one_goes() {
    let (at, mut there, mut from) = pair(FAMILIES[0]);
    let datagrams = [[7; 1000]; 200];
    let send = |from: &mut Socket, many| {
        let datagrams = datagrams[..many].iter().map(|one| to(at, one));
        from.send_with(datagrams, Tail::Stays).taken
    };
    assert_eq!(send(&mut from, 5), 5, "without trains nothing is joined");
    from.send_trains(true);
    assert_eq!([1, 5, 63].map(|many| send(&mut from, many)), [0; 3]);
    assert_eq!(
        [64, 65, 127, 200].map(|many| send(&mut from, many)),
        [64, 64, 64, 192]
    );
    // One that a shorter datagram has closed has no room, and neither has one to elsewhere that others stand behind.
    let closed = [to(at, &[7; 1000]), to(at, &[7; 10])].into_iter();
    assert_eq!(from.send_with(closed, Tail::Stays).taken, 2);
    let marked = Outgoing {
        ecn: 1,
        ..to(at, &[7; 1000])
    };
    let parted = [to(at, &[7; 1000]), marked].into_iter();
    assert_eq!(from.send_with(parted, Tail::Stays).taken, 1);
    assert_eq!(all(&mut there).len(), 5 + 64 * 3 + 192 + 2 + 1);
}

#[test]
fn marks_arrive_and_part_trains() {
    for at in FAMILIES {
        let (at, mut there, mut from) = pair(at);
        from.send_trains(true);
        there.receive_trains().unwrap();
        let marks = [0, 0, 1, 2, 2, 2, 3, 0];
        let datagrams = marks.map(|ecn| Outgoing {
            ecn,
            ..to(at, &[5; 900])
        });
        assert_eq!(from.send(datagrams.into_iter()).refused, 0);
        let mut seen = Vec::new();
        while there
            .receive(|all| seen.extend(all.datagrams().map(|_| all.ecn)))
            .unwrap()
            == Came::Full
        {}
        assert_eq!(seen, marks);
    }
}

#[test]
fn what_is_refused_as_a_train_goes_singly_and_nothing_is_lost() {
    let (at, mut there, mut from) = pair(FAMILIES[0]);
    from.send_trains(true);
    let datagrams = [[1; 1400], [2; 1400], [3; 1400]];
    // Without checksums the kernel makes no trains.
    set_option(&from.fd, (libc::SOL_SOCKET, libc::SO_NO_CHECK), 1).unwrap();
    assert_eq!(
        from.send(datagrams.iter().map(|one| to(at, one))).refused,
        0
    );
    let seen: Vec<Vec<u8>> = all(&mut there).into_iter().map(|one| one.1).collect();
    assert_eq!(seen, datagrams);
    assert!(from.is_pausing());
}

#[test]
fn trains_are_sound_on_this_machine() {
    assert_eq!(try_trains(false), Ok(()));
    assert_eq!(try_trains(true), Ok(()));
}

#[test]
fn a_datagram_longer_than_the_buffer_is_told_as_cut() {
    let (address, mut there, mut from) = pair(FAMILIES[0]);
    assert_eq!(from.send([to(address, &[1; 4000])].into_iter()).refused, 0);
    assert_eq!(all(&mut there)[0].2, Cut::Cut);
}

#[test]
fn what_is_sent_in_fragments_arrives_whole_and_the_next_is_sent_as_before() {
    for at in FAMILIES {
        let (at, mut there, mut from) = pair(at);
        assert_eq!(
            from.send_in_fragments([to(at, &[1; 1400])].into_iter())
                .refused,
            0
        );
        assert_eq!(from.send([to(at, &[2; 1400])].into_iter()).refused, 0);
        let seen: Vec<Vec<u8>> = all(&mut there).into_iter().map(|one| one.1).collect();
        assert_eq!(seen, [vec![1; 1400], vec![2; 1400]]);
    }
}

/// What the kernel was told of who may cut what an IPv4 socket sends.
fn cutting(socket: &Socket) -> libc::c_int {
    let mut value: libc::c_int = -1;
    let mut len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap();
    // SAFETY: the value is one c_int with its length, and both outlive the call.
    let answer = unsafe {
        libc::getsockopt(
            socket.fd.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    assert_eq!(answer, 0);
    value
}

#[test]
fn no_router_may_cut_a_train_and_this_host_may_cut_what_goes_singly() {
    let (at, _there, mut from) = pair(FAMILIES[0]);
    let datagrams = [[1; 1400], [2; 1400]];
    let send = |from: &mut Socket| from.send(datagrams.iter().map(|one| to(at, one)));
    send(&mut from);
    assert_eq!(cutting(&from), libc::IP_PMTUDISC_WANT);
    from.send_trains(true);
    send(&mut from);
    assert_eq!(cutting(&from), libc::IP_PMTUDISC_DO);
    from.send_in_fragments([to(at, &[1; 1400])].into_iter());
    assert_eq!(cutting(&from), libc::IP_PMTUDISC_DONT);
    send(&mut from);
    assert_eq!(cutting(&from), libc::IP_PMTUDISC_DO);
    // One that is refused alone says nothing of others.
    from.send([to(at, &[0; 70_000])].into_iter());
    assert_eq!(cutting(&from), libc::IP_PMTUDISC_DO);
    assert!(!from.is_pausing());
}

#[test]
fn one_refused_datagram_does_not_stop_the_others() {
    let (address, mut there, mut from) = pair(FAMILIES[0]);
    let long = vec![0; 70_000];
    let datagrams = [to(address, b"a"), to(address, &long), to(address, b"b")];
    assert_eq!(from.send(datagrams.into_iter()).refused, 1);
    assert_eq!(all(&mut there).len(), 2);
}

#[test]
fn sockets_go_on_in_other_hands_with_what_waits_in_them() {
    let mut pair = Pair::bind(0).unwrap();
    let port = pair.port().unwrap();
    let held = pair.hold().unwrap();
    let at = SocketAddr::new("127.0.0.1".parse().unwrap(), port);
    pair.udp4.send([to(at, b"waits")].into_iter());
    let had_v6 = held.udp6.is_some();
    drop(pair);
    let mut pair = Pair::adopt(held).unwrap();
    assert_eq!(pair.port().unwrap(), port);
    assert_eq!(pair.udp6.is_some(), had_v6);
    assert_eq!(all(&mut pair.udp4)[0].1, b"waits");
}

#[test]
fn what_an_agent_would_not_have_bound_is_not_taken() {
    let alone = |udp4: OwnedFd| Pair::adopt(Held { udp4, udp6: None }).map(drop);
    let narrow = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    assert_eq!(alone(narrow.fd), Err(Misfit));
    let tcp = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    assert_eq!(alone(tcp.into()), Err(Misfit));
    let Some(v6) = Pair::bind(0).unwrap().udp6 else {
        return;
    };
    assert_eq!(alone(v6.fd), Err(Misfit));
}

#[test]
fn both_families_share_a_port_and_a_second_agent_is_told() {
    let pair = Pair::bind(0).unwrap();
    let port = pair.port().unwrap();
    if let Some(udp6) = &pair.udp6 {
        assert_eq!(udp6.port().unwrap(), port);
    }
    assert!(matches!(Pair::bind(port), Err(BindError::Busy(busy)) if busy == port));
}

#[test]
fn the_buffer_to_send_from_is_what_leaves_in_some_milliseconds() {
    let fitting = |of, left, took_ms, bytes| {
        let took = Duration::from_millis(took_ms);
        Drained { of, left, took }.fitting(bytes)
    };
    // 20 Mbit/s: step by step to what leaves in 4 ms.
    let (of, left) = (1 << 20, 1 << 19);
    assert_eq!(fitting(of, left, 210, SEND_BUFFER), SEND_BUFFER / 2);
    assert_eq!(fitting(40_000, 20_000, 8, 20_000), SEND_BUFFER_MIN);
    // A fast one gets more, and never more than there is.
    assert_eq!(fitting(of, left, 1, SEND_BUFFER), SEND_BUFFER * 2);
    assert_eq!(fitting(BUFFER * 2, BUFFER, 1, BUFFER), BUFFER);
    let took = Duration::from_millis(50);
    let stuck = |left| Drained { of, left, took }.is_stuck();
    assert!(stuck(of) && !stuck(of - of / 8));
    // Who comes late knows nothing of a slow uplink.
    assert_eq!(fitting(of, 0, 210, SEND_BUFFER), SEND_BUFFER);
    assert_eq!(fitting(0, 0, 210, SEND_BUFFER), SEND_BUFFER);
}

#[test]
fn transport_data_comes_to_the_sockets_that_it_names_and_all_else_to_the_first() {
    let mut first = Pair::bind(0).unwrap();
    let [mut second, mut third] = [(); 2].map(|()| first.beside().unwrap());
    first.steer(3).unwrap();
    let port = first.port().unwrap();
    let named = |kind: u8, thread: u8| [kind, 0, 0, 0, 9, 9, 9, thread, 1];
    for (address, family) in [("127.0.0.1", Family::V4), ("::1", Family::V6)] {
        let at = SocketAddr::new(address.parse().unwrap(), port);
        let mut from = Socket::bind(SocketAddr::new(at.ip(), 0)).unwrap();
        let sent = [
            (named(0x10, 0), 0),
            (named(0x10, 1), 1),
            (named(0x10, 2), 2),
            (named(0x10, 3), 0),
            (named(0x10, 255), 0),
            (named(0x04, 1), 0),
            (named(0x01, 2), 0),
        ];
        assert_eq!(from.send(sent.iter().map(|one| to(at, &one.0))).refused, 0);
        let short = [0x10, 0, 0, 0];
        assert_eq!(from.send([to(at, &short)].into_iter()).refused, 0);
        for (pair, number) in [(&mut first, 0), (&mut second, 1), (&mut third, 2)] {
            let came = all(pair.socket(family).unwrap());
            let came: Vec<_> = came.into_iter().map(|(_, bytes, _)| bytes).collect();
            let wanted = sent.iter().filter(|(_, thread)| *thread == number);
            let wanted = wanted.map(|(bytes, _)| bytes.to_vec());
            let behind = (number == 0).then(|| short.to_vec());
            assert_eq!(came, wanted.chain(behind).collect::<Vec<_>>(), "{family:?}");
        }
    }
    let taken = Pair::bind(port).unwrap_err();
    assert!(matches!(taken, BindError::Busy(_)), "a stranger is refused");
}
