//! Tables at 80 and 120 columns, and without a terminal.

use webmesh::{
    api::{Met, Path, PathKind, PeerDetails, PeersReply, Role},
    cli::status::{peers_reply, service, status},
};

use super::values;

const STATUS: &str = "\
home · bo (member) · 100.71.3.4 · UDP 41820 behind NAT · certificate until 2027-02-20
PEER  STATE  PATH                      RTT    RX      TX      LAST
anna  up     direct 203.0.113.9:61234  34 ms  8.1 MB  1.2 MB  now
nas   up     relay via vps             48 ms  3.0 GB  22 MB   now     → webmesh why nas
old   away   –                         –      –       –       3 days
SERVICE  UP      ADDRESS                   WHERE
web      1 of 1  web.svc.home.internal:80  anna
! home has one admin. If anna's machine is lost nobody can be added: on another machine of it, with the recovery code: sudo webmesh recover CODE
";

#[test]
fn status_is_the_transcripts() {
    assert_eq!(status(&values::status(), None), STATUS);
    assert_eq!(status(&values::status(), Some(120)), STATUS);
}

#[test]
fn status_says_whom_the_dht_has_found_last() {
    let mut picture = values::status();
    let met = |peer: &str, ago_s| Met {
        peer: peer.into(),
        ago_s,
    };
    picture.dht = values::dht(vec![met("anna", 181), met("nas", 9_000)]);
    let said = status(&picture, None);
    let line = said.lines().nth(1);
    assert_eq!(line, Some("dht  met anna through the DHT 3 min ago"));
}

#[test]
fn status_folds_its_head_at_80_columns() {
    let head =
        "home · bo (member) · 100.71.3.4 · UDP 41820 behind NAT · certificate until 2027-02-20\n";
    let folded =
        "home · bo (member) · 100.71.3.4 · UDP 41820 behind NAT\n  certificate until 2027-02-20\n";
    let narrow = STATUS.replace(head, folded);
    assert_eq!(
        status(&values::status(), Some(80)),
        narrow.replace("     → webmesh why nas", ""),
        "a hint that has no room is left out"
    );
}

#[test]
fn a_long_path_is_cut_at_80_columns_and_whole_at_120() {
    let mut picture = values::status();
    let endpoint = "[2001:db8:1234:5678:9abc:def0:1234:5678]:61234";
    picture.peers[0].path = Some(Path {
        endpoint: Some(endpoint.into()),
        ..values::direct("")
    });
    let narrow = status(&picture, Some(80));
    assert!(
        narrow
            .lines()
            .filter(|line| !line.starts_with('!'))
            .all(|line| line.chars().count() <= 80),
        "{narrow}"
    );
    assert!(
        narrow.contains("direct [2001:db8:1234:5678:9abc:def…  34 ms"),
        "{narrow}"
    );
    assert!(status(&picture, Some(120)).contains(endpoint));
    assert!(status(&picture, None).contains(endpoint));
}

#[test]
fn a_machine_in_no_network_is_told_what_to_do() {
    assert_eq!(
        status(&values::nowhere(), Some(80)),
        "Webmesh runs and is in no network.  New one: sudo webmesh init NAME     Join one: sudo webmesh join TOKEN\n"
    );
}

#[test]
fn a_network_that_is_down_says_how_to_get_it_up() {
    let text = status(&values::down(), None);
    assert!(
        text.ends_with("home is down here. Again: sudo webmesh up\n"),
        "{text}"
    );
    assert!(!text.contains("PEER"));
}

#[test]
fn one_peer_is_its_line_and_what_is_known_of_it() {
    let mut reply = PeersReply {
        peers: vec![values::anna()],
        details: Some(PeerDetails {
            domain_name: "anna.home.internal".into(),
            role: Role::Admin,
            groups: vec![],
            admitted_at: values::NOW,
            certificate_until: values::NOW + 90 * 86_400,
            version: Some("0.1.0".into()),
            endpoints: vec!["203.0.113.9:41820".into(), "192.168.1.20:41820".into()],
            services: vec!["db".into(), "web".into()],
        }),
    };
    let id = "a1".repeat(32);
    let expected = format!(
        "\
PEER  STATE  PATH                      RTT    RX      TX      LAST
anna  up     direct 203.0.113.9:61234  34 ms  8.1 MB  1.2 MB  now
  name         anna.home.internal
  addresses    100.71.20.9  fd7c:1a2b:3c4d:9c41:77e0:5b1:c0de:12
  dialled at   203.0.113.9:41820  192.168.1.20:41820
  role         admin, since 2026-11-22
  certificate  until 2027-02-20
  version      0.1.0
  services     db, web
  sealed by    wireguard
  id           {id}
"
    );
    assert_eq!(peers_reply(&reply, Some(120)), expected);
    let details = reply.details.as_mut().unwrap();
    (details.version, details.services) = (None, vec![]);
    let shorter = expected
        .replace("  version      0.1.0\n", "")
        .replace("  services     db, web\n", "");
    assert_eq!(peers_reply(&reply, Some(120)), shorter);
    let anna = &mut reply.peers[0];
    (anna.tx_bytes, anna.rx_bytes) = (0, 0);
    let said = peers_reply(&reply, Some(120));
    let quiet = "  sealed by    wireguard, as long as no program has talked\n";
    assert!(said.contains(quiet), "{said}");
}

#[test]
fn nobody_else_is_an_answer_too() {
    let alone = PeersReply {
        peers: vec![],
        details: None,
    };
    assert_eq!(
        peers_reply(&alone, None),
        "no other peers yet: sudo webmesh invite\n"
    );
}

#[test]
fn a_service_is_shown_instance_by_instance() {
    let expected = "\
web.svc.home.internal:80  2 of 3 up
  PEER  STATE  TARGET
  anna  up     127.0.0.1:8080
  nas   up     –
  old   down   –
";
    assert_eq!(service(&values::web(), Some(80)), expected);
}

#[test]
fn a_relayed_path_names_its_relay() {
    let path = Path {
        kind: PathKind::Relay,
        endpoint: None,
        via: Some("vps".into()),
        why: None,
    };
    let words = webmesh::cli::status::path;
    assert_eq!(words(&path), "relay via vps");
    let bare = |kind| Path {
        kind,
        via: None,
        ..path.clone()
    };
    assert_eq!(words(&bare(PathKind::Relay)), "relay (lost)");
    assert_eq!(words(&bare(PathKind::Stream)), "stream (TLS)");
}

#[test]
fn weights_and_tags_are_shown_where_somebody_gave_them() {
    let mut web = values::web();
    web.instances[1].weight = 50;
    web.instances[1].tags = vec!["v2".into(), "eu".into()];
    assert_eq!(
        service(&web, None),
        "web.svc.home.internal:80  2 of 3 up\n  \
         PEER  STATE  WEIGHT  TAGS    TARGET\n  \
         anna  up     100     –       127.0.0.1:8080\n  \
         nas   up     50      v2, eu  –\n  \
         old   down   100     –       –\n"
    );
}
