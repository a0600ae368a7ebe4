//! The schema of `status --json` holds what an agent of ours says, and finds what is not so.

use serde_json::json;

use super::{schema, values};

#[test]
fn what_an_agent_of_ours_says_is_as_the_schema_says() {
    for status in [values::status(), values::nowhere(), values::down()] {
        let value = serde_json::to_value(&status).unwrap();
        assert_eq!(
            schema::violations(&schema::status_schema(), &value),
            [""; 0]
        );
    }
}

#[test]
fn the_schema_finds_what_is_missing_added_or_changed() {
    let good = serde_json::to_value(values::status()).unwrap();
    let changes = [
        ("/network", None, "a key is missing"),
        ("/peers/0/path", None, "a peer's key is missing"),
        ("/self/colour", Some(json!("red")), "a key is new"),
        ("/network/id", Some(json!("abc")), "an id is short"),
        ("/peers/0/state", Some(json!("tired")), "a state is unknown"),
        ("/peers/0/tx_bytes", Some(json!("1")), "a number is text"),
        ("/drops/x", Some(json!(-1)), "a counter is negative"),
        ("/api", Some(json!(2)), "the version is another"),
    ];
    for (place, new, what) in changes {
        let mut value = good.clone();
        let (parent, key) = place.rsplit_once('/').unwrap();
        let members = value.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match new {
            Some(new) => members.insert(key.to_owned(), new),
            None => members.remove(key),
        };
        let found = schema::violations(&schema::status_schema(), &value);
        assert!(!found.is_empty(), "not found: {what}");
    }
}
