//! The part of JSON Schema that `status.schema.json` and `why.schema.json` use; a keyword that is not here is a violation, so nothing in the
//! schema is silently unchecked.

use serde_json::Value;

/// The schema of `status --json`.
pub(crate) fn status_schema() -> Value {
    serde_json::from_str(include_str!("status.schema.json")).expect("the schema is JSON")
}

/// Everything in which `value` is not as `schema` says.
pub(crate) fn violations(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    judge(schema, schema, value, "$", &mut found);
    found
}

fn judge(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().expect("a schema is an object") {
        let is_good = match keyword.as_str() {
            "$schema" | "title" | "$defs" | "properties" => true,
            "$ref" => {
                let pointer = rule.as_str().unwrap().trim_start_matches('#');
                judge(
                    root,
                    root.pointer(pointer)
                        .expect("the reference leads somewhere"),
                    value,
                    at,
                    found,
                );
                true
            }
            "anyOf" => rule.as_array().unwrap().iter().any(|one| {
                let mut inner = Vec::new();
                judge(root, one, value, at, &mut inner);
                inner.is_empty()
            }),
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "type" => has_type(rule, value),
            "minimum" => value
                .as_f64()
                .is_none_or(|number| number >= rule.as_f64().unwrap()),
            "maximum" => value
                .as_f64()
                .is_none_or(|number| number <= rule.as_f64().unwrap()),
            "minItems" => length(value).is_none_or(|length| length >= rule.as_u64().unwrap()),
            "maxItems" => length(value).is_none_or(|length| length <= rule.as_u64().unwrap()),
            "pattern" => matches_pattern(rule.as_str().unwrap(), value),
            "required" => {
                let has = |key: &Value| value.get(key.as_str().unwrap()).is_some();
                rule.as_array().unwrap().iter().all(has)
            }
            "items" => {
                for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                    judge(root, rule, item, &format!("{at}[{i}]"), found);
                }
                true
            }
            "additionalProperties" => judge_members(root, schema, value, at, found),
            _ => false,
        };
        if !is_good {
            found.push(format!("{at}: {value} is not {keyword} {rule}"));
        }
    }
}

fn judge_members(
    root: &Value,
    schema: &Value,
    value: &Value,
    at: &str,
    found: &mut Vec<String>,
) -> bool {
    let others = &schema["additionalProperties"];
    for (key, member) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{key}");
        match schema.get("properties").and_then(|known| known.get(key)) {
            Some(rule) => judge(root, rule, member, &at, found),
            None if others == &Value::Bool(false) => found.push(format!("{at} is not known")),
            None => judge(root, others, member, &at, found),
        }
    }
    true
}

fn has_type(rule: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    match rule.as_array() {
        Some(names) => names.iter().any(is),
        None => is(rule),
    }
}

fn length(value: &Value) -> Option<u64> {
    value.as_array().map(|all| all.len() as u64)
}

fn matches_pattern(pattern: &str, value: &Value) -> bool {
    assert_eq!(pattern, "^[0-9a-f]{64}$", "the only pattern there is");
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    value
        .as_str()
        .is_none_or(|text| text.len() == 64 && text.bytes().all(is_hex))
}
