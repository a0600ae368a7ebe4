//! JSON lines: talk, then the result or an error.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::ApiError;

/// One line of an answer in JSON lines. Any number of [`Line::Talk`], then one of the others; nothing after it.
///
/// What `talk` is: for `join` and `wait` a line of text for the person who waits; for `ping` a [`super::Pong`]; for
/// `status` with `watch` a [`super::Status`].
#[derive(Clone, Debug, PartialEq)]
pub enum Line<T, R> {
    /// `{"talk": …}`.
    Talk(T),
    /// `{"error": {exit, code, message, remedy}}`: it came to nothing after the answer had begun.
    Error(ApiError),
    /// The reply itself.
    Reply(R),
}

/// Why a line could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the agent's answer cannot be read")]
pub struct LineError(#[from] serde_json::Error);

impl<T: Serialize, R: Serialize> Line<T, R> {
    /// The line with its newline.
    pub fn encode(&self) -> String {
        let value = match self {
            Self::Talk(talk) => {
                serde_json::to_value(talk).map(|talk| serde_json::json!({ "talk": talk }))
            }
            Self::Error(error) => {
                serde_json::to_value(error).map(|error| serde_json::json!({ "error": error }))
            }
            Self::Reply(reply) => serde_json::to_value(reply),
        };
        let value = value.expect("replies have text keys and no failing serializer");
        format!("{value}\n")
    }
}

impl<T: DeserializeOwned, R: DeserializeOwned> Line<T, R> {
    /// Reads one line.
    ///
    /// # Errors
    /// The line is none of the three shapes.
    pub fn parse(line: &str) -> Result<Self, LineError> {
        let mut value: Value = serde_json::from_str(line)?;
        if let Some(talk) = value.get_mut("talk").map(Value::take) {
            return Ok(Self::Talk(T::deserialize(talk)?));
        }
        if let Some(error) = value.get_mut("error").map(Value::take) {
            return Ok(Self::Error(ApiError::deserialize(error)?));
        }
        Ok(Self::Reply(R::deserialize(value)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Code, WaitReply};

    #[test]
    fn each_shape_is_read_as_it_was_written() {
        let lines: [Line<String, WaitReply>; 3] = [
            Line::Talk("Looking for anna".into()),
            Line::Error(ApiError::no(Code::TimedOut, "nas did not come up in 30 s")),
            Line::Reply(WaitReply { took_ms: 12.5 }),
        ];
        for line in lines {
            let text = line.encode();
            assert!(text.ends_with('\n') && text.matches('\n').count() == 1);
            assert_eq!(Line::parse(&text).unwrap(), line);
        }
    }
}
