//! Super-packets: cut and joined again they are what they were, and every checksum is what a slow reader computes.

use proptest::prelude::*;

use super::{
    checksum::{Sum, pseudo},
    ip::{Header, TCP, UDP},
    join::Run,
    split::{Misfit, Segments},
    tcp::{ACK, CWR, FIN, PSH, SYN},
    vnet::{self, Undone},
};

/// What a super-packet is made of.
#[derive(Clone, Debug)]
struct Recipe {
    is_v6: bool,
    is_udp: bool,
    id: u16,
    sequence: u32,
    flags: u8,
    /// Words of TCP options.
    options: usize,
    size: u16,
    body: Vec<u8>,
}

fn recipes() -> impl Strategy<Value = Recipe> {
    let head = (any::<bool>(), any::<bool>(), any::<u16>(), any::<u32>());
    let flags = prop_oneof![
        Just(ACK),
        Just(ACK | PSH),
        Just(ACK | FIN),
        Just(ACK | FIN | PSH | 0x40)
    ];
    let sizes = prop_oneof![1..80_u16, 500..1500_u16, Just(1368), Just(1369)];
    let body = (2..3000_usize, any::<u64>());
    (head, flags, 0..=10_usize, sizes, body).prop_map(
        |(head, flags, options, size, (len, seed))| {
            let (is_v6, is_udp, id, sequence) = head;
            Recipe {
                is_v6,
                is_udp,
                id,
                sequence,
                flags,
                options,
                size,
                body: noise(len, seed),
            }
        },
    )
}

fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

impl Recipe {
    fn protocol(&self) -> u8 {
        if self.is_udp { UDP } else { TCP }
    }

    fn undone(&self) -> Undone {
        Undone::Segments {
            protocol: self.protocol(),
            size: self.size,
        }
    }

    /// The packet with these numbers, all checksums as a kernel leaves them to whoever cuts it.
    fn build(&self) -> Vec<u8> {
        let mut transport = vec![0x12, 0x34, 0x56, 0x78];
        if self.is_udp {
            transport.extend_from_slice(&u16::try_from(8 + self.body.len()).unwrap().to_be_bytes());
            transport.extend_from_slice(&[0, 0]);
        } else {
            transport.extend_from_slice(&self.sequence.to_be_bytes());
            transport.extend_from_slice(&[9, 8, 7, 6]);
            let words = u8::try_from(5 + self.options).unwrap();
            transport.extend_from_slice(&[words << 4, self.flags, 2, 3, 0, 0, 0, 0]);
            transport.extend(std::iter::repeat_n(1, self.options * 4));
        }
        transport.extend_from_slice(&self.body);
        let len = u16::try_from(transport.len()).unwrap();
        let mut packet = Vec::new();
        if self.is_v6 {
            packet.extend_from_slice(&[0x60, 0x21, 0, 7]);
            packet.extend_from_slice(&len.to_be_bytes());
            packet.extend_from_slice(&[self.protocol(), 64]);
            packet.extend_from_slice(&[0xfd; 16]);
            packet.extend_from_slice(&[0xfc; 16]);
        } else {
            packet.extend_from_slice(&[0x45, 2]);
            packet.extend_from_slice(&(20 + len).to_be_bytes());
            packet.extend_from_slice(&self.id.to_be_bytes());
            packet.extend_from_slice(&[0, 0, 64, self.protocol(), 0, 0]);
            packet.extend_from_slice(&[100, 64, 0, 1, 100, 64, 0, 2]);
            let checksum = Sum::default().bytes(&packet).finish();
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        let at = packet.len();
        packet.extend_from_slice(&transport);
        let header = Header::parse(&packet).unwrap();
        let sum = !pseudo(
            header.source,
            header.destination,
            header.protocol,
            transport.len(),
        )
        .finish();
        let field = at + if self.is_udp { 6 } else { 16 };
        packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        packet
    }
}

/// All segments, each copied before the next is made.
fn cut(packet: &[u8], undone: Undone, room: usize) -> Result<Vec<Vec<u8>>, Misfit> {
    let mut packet = packet.to_vec();
    let header = Header::parse(&packet).unwrap();
    let mut segments = Segments::of(&mut packet, &header, undone)?;
    segments.limit(room);
    let mut all = Vec::new();
    while let Some(at) = segments.next(&mut packet) {
        all.push(packet[at].to_vec());
    }
    Ok(all)
}

/// The packets joined as far as they can be; each joined one as the device is given it.
fn join(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut rest = packets;
    while let [first, others @ ..] = rest {
        let mut run = Run::begin(first);
        let taken = run.as_mut().map_or(0, |run| {
            others
                .iter()
                .take_while(|packet| run.take(first, packet))
                .count()
        });
        rest = &others[taken..];
        let Some(run) = run.filter(|run| run.packets() > 1) else {
            all.push([&vnet::NOTHING[..], first].concat());
            continue;
        };
        let mut joined = run.head(first).unwrap().bytes().to_vec();
        joined.extend_from_slice(&first[run.body_at()..]);
        for other in &others[..taken] {
            joined.extend_from_slice(&other[run.body_at()..]);
        }
        all.push(joined);
    }
    all
}

/// What a receiver checks.
fn assert_sound(packet: &[u8]) {
    let header = Header::parse(packet).unwrap();
    assert_eq!(header.len, packet.len());
    if packet[0] >> 4 == 4 {
        assert_eq!(Sum::default().bytes(&packet[..20]).finish(), 0);
    }
    let payload = header.payload(packet);
    let seen = pseudo(
        header.source,
        header.destination,
        header.protocol,
        payload.len(),
    );
    let words = payload
        .chunks(2)
        .map(|word| [word[0], word.get(1).copied().unwrap_or(0)]);
    let sum = words.fold(seen, |sum, word| sum.word(u16::from_be_bytes(word)));
    assert_eq!(sum.finish(), 0);
    if header.protocol == UDP {
        assert_eq!(
            usize::from(u16::from_be_bytes([payload[4], payload[5]])),
            payload.len()
        );
        assert_ne!(payload[6..8], [0, 0]);
    }
}

proptest! {
    #[test]
    fn segments_are_what_the_rfcs_say_and_joined_they_are_the_packet_again(recipe in recipes()) {
        let packet = recipe.build();
        let segments = cut(&packet, recipe.undone(), usize::MAX).unwrap();
        let size = usize::from(recipe.size);
        prop_assert_eq!(segments.len(), recipe.body.len().div_ceil(size));
        let head = segments[0].len() - size.min(recipe.body.len());
        let mut at = recipe.sequence;
        for (i, (segment, body)) in segments.iter().zip(recipe.body.chunks(size)).enumerate() {
            assert_sound(segment);
            prop_assert_eq!(&segment[head..], body);
            if !recipe.is_v6 {
                let id = recipe.id.wrapping_add(u16::try_from(i).unwrap());
                prop_assert_eq!(&segment[4..6], id.to_be_bytes());
            }
            if !recipe.is_udp {
                let tcp = if recipe.is_v6 { 40 } else { 20 };
                prop_assert_eq!(&segment[tcp + 4..tcp + 8], at.to_be_bytes());
                let is_last = i + 1 == segments.len();
                let flags = if is_last { recipe.flags } else { recipe.flags & !(FIN | PSH) };
                prop_assert_eq!(segment[tcp + 13], flags);
                at = at.wrapping_add(u32::try_from(body.len()).unwrap());
            }
        }
        if segments.len() > 64 {
            return Ok(());
        }
        let [joined] = &join(&segments)[..] else {
            return Err(TestCaseError::fail("they are not one packet"));
        };
        let (device, whole) = joined.split_first_chunk::<{ vnet::LEN }>().unwrap();
        if segments.len() > 1 {
            prop_assert_eq!(whole, &packet[..]);
            prop_assert_eq!(vnet::decode(device).unwrap(), recipe.undone());
        }
    }

    #[test]
    fn a_narrower_way_gets_shorter_segments_of_tcp_and_none_of_udp(recipe in recipes(), room in 101_usize..600) {
        let packet = recipe.build();
        let segments = cut(&packet, recipe.undone(), room).unwrap();
        let wide = cut(&packet, recipe.undone(), usize::MAX).unwrap();
        if recipe.is_udp {
            prop_assert_eq!(segments, wide);
            return Ok(());
        }
        let head = wide[0].len() - usize::from(recipe.size).min(recipe.body.len());
        let bodies = |all: &[Vec<u8>]| all.iter().flat_map(|one| one[head..].to_vec()).collect::<Vec<_>>();
        prop_assert_eq!(bodies(&segments), bodies(&wide));
        segments.iter().for_each(|segment| assert_sound(segment));
        prop_assert!(segments.iter().all(|segment| segment.len() <= room));
    }

    #[test]
    fn whoever_slowed_down_says_so_in_the_first_segment_alone(mut recipe in recipes()) {
        recipe.is_udp = false;
        recipe.flags = ACK | CWR;
        let tcp = if recipe.is_v6 { 40 } else { 20 };
        let segments = cut(&recipe.build(), recipe.undone(), usize::MAX).unwrap();
        let said: Vec<bool> = segments.iter().map(|one| one[tcp + 13] & CWR != 0).collect();
        prop_assert!(said[0] && !said[1..].contains(&true));
        prop_assert_eq!(join(&segments[..1]).len(), 1);
    }

    #[test]
    fn one_changed_bit_of_a_header_keeps_two_packets_apart_or_changes_nothing_else(
        recipe in recipes(), bit in 0_usize..320,
    ) {
        let segments = cut(&recipe.build(), recipe.undone(), usize::MAX).unwrap();
        prop_assume!(segments.len() >= 3);
        let mut changed = segments[1].clone();
        let head = segments[0].len() - usize::from(recipe.size);
        prop_assume!(bit / 8 < head);
        changed[bit / 8] ^= 1 << (bit % 8);
        let mut run = Run::begin(&segments[0]).unwrap();
        let tcp = if recipe.is_v6 { 40 } else { 20 };
        let is_checksum = |at: usize| match recipe.is_udp {
            true => (tcp + 6..tcp + 8).contains(&at),
            false => (tcp + 16..tcp + 18).contains(&at),
        };
        let is_own_checksum = !recipe.is_v6 && (10..12).contains(&(bit / 8));
        let is_end = !recipe.is_udp && bit / 8 == tcp + 13 && matches!(bit % 8, 0 | 3);
        let may = is_checksum(bit / 8) || is_own_checksum || is_end;
        prop_assert_eq!(run.take(&segments[0], &changed), may && changed[tcp + 6..tcp + 8] != [0, 0] || is_end);
    }

    #[test]
    fn no_bytes_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200), other in prop::collection::vec(any::<u8>(), 0..200),
        six: bool, udp: bool, size in any::<u16>(), start in 0_usize..300, offset in 0_usize..300,
    ) {
        if let [first, second, ..] = &mut bytes[..] {
            *first = if six { 0x60 } else { 0x45 };
            *second = 0;
        }
        if let Some(protocol) = bytes.get_mut(if six { 6 } else { 9 }) {
            *protocol = if udp { UDP } else { TCP };
        }
        if let Some(len) = bytes.get_mut(2..7) {
            len[..4].fill(0);
            len[usize::from(six) * 2 + 1] = if six { 40 } else { 80 };
            if !six { len[4] = 0; }
        }
        if let Ok(header) = Header::parse(&bytes) {
            let protocol = if udp { UDP } else { TCP };
            for undone in [Undone::Nothing, Undone::Checksum { start, offset }, Undone::Segments { protocol, size }] {
                let mut packet = bytes.clone();
                if let Ok(mut segments) = Segments::of(&mut packet, &header, undone) {
                    segments.limit(start);
                    while let Some(at) = segments.next(&mut packet) {
                        prop_assert!(at.end <= packet.len());
                    }
                }
            }
        }
        if let Some(mut run) = Run::begin(&bytes) {
            run.take(&bytes, &other);
            run.take(&bytes, &bytes);
            let _ = run.head(&bytes);
        }
    }
}

#[test]
fn datagrams_of_every_length_are_cut_and_joined() {
    let mut recipe = Recipe {
        is_v6: false,
        is_udp: true,
        id: 65_530,
        sequence: 0,
        flags: 0,
        options: 0,
        size: 1392,
        body: Vec::new(),
    };
    for len in [1, 2, 1391, 1392, 1393, 2784, 2785, 9000, 65_506, 65_507] {
        recipe.body = noise(len, 7);
        let packet = recipe.build();
        let segments = cut(&packet, recipe.undone(), usize::MAX).unwrap();
        segments.iter().for_each(|segment| assert_sound(segment));
        let joined = join(&segments);
        assert_eq!(joined.len(), 1, "{len}");
        if len > 1392 {
            assert_eq!(joined[0][vnet::LEN..], packet[..]);
        }
    }
}

#[test]
fn a_checksum_left_undone_is_finished() {
    for (is_udp, offset) in [(true, 6), (false, 16)] {
        for is_v6 in [false, true] {
            let recipe = Recipe {
                is_v6,
                is_udp,
                id: 1,
                sequence: 2,
                flags: ACK,
                options: 3,
                size: 1,
                body: noise(333, 9),
            };
            let start = if is_v6 { 40 } else { 20 };
            let undone = Undone::Checksum { start, offset };
            let all = cut(&recipe.build(), undone, usize::MAX).unwrap();
            assert_eq!(all.len(), 1);
            assert_sound(&all[0]);
        }
    }
}

#[test]
fn what_is_no_super_packet_is_not_cut() {
    let recipe = Recipe {
        is_v6: false,
        is_udp: false,
        id: 1,
        sequence: 2,
        flags: ACK,
        options: 0,
        size: 100,
        body: noise(333, 9),
    };
    let packet = recipe.build();
    let as_udp = Undone::Segments {
        protocol: UDP,
        size: 100,
    };
    assert_eq!(cut(&packet, as_udp, usize::MAX), Err(Misfit));
    let no_size = Undone::Segments {
        protocol: TCP,
        size: 0,
    };
    assert_eq!(cut(&packet, no_size, usize::MAX), Err(Misfit));
    let mut fragment = packet.clone();
    fragment[6] = 0x20;
    assert_eq!(cut(&fragment, recipe.undone(), usize::MAX), Err(Misfit));
    let mut long_head = packet;
    long_head[32] = 0x40;
    assert_eq!(cut(&long_head, recipe.undone(), usize::MAX), Err(Misfit));
}

#[test]
fn packets_of_other_flows_control_segments_and_empty_ones_stay_alone() {
    let recipe = |flags, len| Recipe {
        is_v6: true,
        is_udp: false,
        id: 0,
        sequence: 5,
        flags,
        options: 3,
        size: 100,
        body: noise(len, 3),
    };
    assert!(Run::begin(&recipe(ACK | SYN, 100).build()).is_none());
    assert!(Run::begin(&recipe(ACK, 0).build()).is_none());
    let first = recipe(ACK, 100).build();
    let mut run = Run::begin(&first).unwrap();
    assert!(!run.take(&first, &recipe(ACK, 0).build()));
    assert!(!run.take(&first, &first), "the same again");
    let ended = recipe(ACK | FIN, 100).build();
    let mut run = Run::begin(&ended).unwrap();
    let next = |flags| {
        let next = Recipe {
            sequence: 105,
            ..recipe(flags, 100)
        };
        next.build()
    };
    assert!(!run.take(&ended, &next(ACK)), "nothing comes behind it");
    let mut run = Run::begin(&first).unwrap();
    assert!(run.take(&first, &next(ACK)));
}

#[test]
fn what_is_to_be_handed_on_at_once_is_joined_and_the_whole_is_handed_on_at_once() {
    let segments = [ACK | PSH, ACK, ACK | PSH, ACK].map(|flags| (flags, 5..205));
    let mut sequence = 5;
    let segments = segments.map(|(flags, body)| {
        let recipe = Recipe {
            is_v6: true,
            is_udp: false,
            id: 0,
            sequence,
            flags,
            options: 0,
            size: 200,
            body: body.collect(),
        };
        sequence += 200;
        recipe.build()
    });
    for (first, is_pushed) in [(0, true), (1, true), (3, false)] {
        let joined = join(&segments[first..]);
        assert_eq!(joined.len(), 1);
        let flags = joined[0][vnet::LEN + 40 + 13];
        assert_eq!(flags & PSH != 0, is_pushed, "{first}");
    }
}
