//! Issue 3, points 2 and 9: the resolver, asked by dig.

use crate::{
    ground::{Ground, over},
    harness::Net,
};

over! { wide, Plain: the_resolver_answers_each_kind_of_question_as_dns_asks }
over! { ipv4_with_an_mtu_of_1280, Narrow4: the_resolver_answers_each_kind_of_question_as_dns_asks }
over! { ipv6_with_an_mtu_of_1280, Narrow6: the_resolver_answers_each_kind_of_question_as_dns_asks }

fn the_resolver_answers_each_kind_of_question_as_dns_asks(ground: Ground) {
    let net = Net::three_on(ground);
    net.form();
    let bo = net.peer("bo");
    let [v4, v6] = net.peer("anna").mesh_addresses();
    let servers = bo.status()["dns"]["servers"].clone();
    let servers = servers.as_array().unwrap();
    assert_eq!(servers.len(), 2, "one address of each family: {servers:?}");
    for server in servers {
        for transport in ["", "+tcp"] {
            let server = server.as_str().unwrap();
            let ask = |question: &str| {
                bo.sh(&format!(
                    "dig @{server} +time=3 +tries=1 {transport} {question}"
                ))
            };
            assert_eq!(ask("+short anna.home.internal A"), format!("{v4}\n"));
            assert_eq!(ask("+short anna.home.internal AAAA"), format!("{v6}\n"));
            assert_eq!(ask(&format!("+short -x {v4}")), "anna.home.internal.\n");
            assert_eq!(ask(&format!("+short -x {v6}")), "anna.home.internal.\n");
            assert!(ask("+short home.internal SOA").contains("home.internal."));
            assert!(ask("+short home.internal NS").ends_with("home.internal.\n"));
            assert_unanswered(&ask("nobody.home.internal"), "NXDOMAIN");
            assert_unanswered(&ask("nobody.svc.home.internal AAAA"), "NXDOMAIN");
            for kind in ["MX", "TXT", "SRV", "CAA"] {
                assert_unanswered(&ask(&format!("anna.home.internal {kind}")), "NOERROR");
            }
            assert_unanswered(&ask("svc.home.internal"), "NOERROR");
            for other in ["www.example.com", "internal", "-x 192.0.2.1", ". NS"] {
                assert_unanswered(&ask(other), "REFUSED");
            }
            assert!(ask("anna.home.internal").contains("EDNS: version: 0"));
            assert!(!ask("+noedns anna.home.internal").contains("EDNS"));
            assert!(ask("+edns=7 +noednsneg anna.home.internal").contains("BADVERS"));
        }
    }
    // By the names people type: the search list and the machine's own library.
    let [own, _] = net.peer("carol").mesh_addresses();
    assert!(bo.sh("getent ahostsv4 carol").starts_with(&own));
}

/// An answer with this status and nothing in it.
fn assert_unanswered(said: &str, status: &str) {
    assert!(
        said.contains(&format!("status: {status}")) && said.contains("ANSWER: 0"),
        "{said}"
    );
}
