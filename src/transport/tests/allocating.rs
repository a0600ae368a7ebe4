//! A transport in use asks for no memory.

use std::time::Duration;

use super::world::*;
use crate::{
    platform::allocation::asked_by,
    transport::{Content, padded},
};

#[test]
fn sealing_and_opening_allocate_nothing() {
    let mut world = World::new(1, Kem::Real, always);
    world.send_user(ALICE_SIDE);
    world.pass(Duration::from_secs(1));
    let [alice, bob] = &mut world.ends;
    let sealing = alice.sealing.as_ref().unwrap();
    let opening = bob.openings.values_mut().next().unwrap();
    let packet = [0x45; 1419];
    let (mut out, mut again) = ([0; 1500], [0; 1500]);
    let mut delivered = 0;
    let asked = asked_by(|| {
        for _ in 0..1_000 {
            let mut run = sealing.run(world.now, 45, 45 * packet.len()).unwrap();
            for _ in 0..45 {
                let len = run
                    .seal(&packet, padded(packet.len(), 1420), &mut out)
                    .unwrap();
                again[..len].copy_from_slice(&out[..len]);
                let opened = opening.open(world.now, &mut out[..len]).unwrap();
                delivered += usize::from(matches!(opened.content, Content::Packet(_)));
                let replayed = opening.open(world.now, &mut again[..len]);
                assert!(replayed.is_err());
            }
            alice.exchange.handle_user_data(world.now);
            bob.exchange.handle_user_data(world.now);
        }
    });
    assert_eq!((asked, delivered), (0, 45_000));
}
