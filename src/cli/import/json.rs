//! JSON (RFC 8259) that knows in which line each value stands.

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub struct Json {
    /// The line it begins in, from 1.
    pub line: u32,
    /// What it is.
    pub value: Value,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// Any number.
    Number(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// Names with values, in the order of the file; a name may come twice.
    Object(Vec<(String, Json)>),
}

/// What is wrong with a text that is no JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// Where, from 1.
    pub line: u32,
    /// What.
    pub message: &'static str,
}

/// Lists and objects in one another.
const DEPTH_MAX: usize = 64;

impl Json {
    /// Reads a whole text.
    ///
    /// # Errors
    /// The first place where it is no JSON, or has more than 64 levels.
    pub fn parse(text: &str) -> Result<Self, JsonError> {
        let mut reader = Reader {
            rest: text.strip_prefix('\u{feff}').unwrap_or(text),
            line: 1,
        };
        let value = reader.value(0)?;
        reader.blanks();
        if reader.rest.is_empty() {
            Ok(value)
        } else {
            Err(reader.error("something follows the end"))
        }
    }

    /// A member by name; as in cJSON, which mosquitto reads with, upper and lower case are the same, and the first one counts.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Value::Object(members) = &self.value else {
            return None;
        };
        let found = members.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }

    /// The text that it is.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The elements of a list; none of anything else.
    pub fn list(&self) -> &[Self] {
        match &self.value {
            Value::List(list) => list,
            _ => &[],
        }
    }

    /// `true` or `false`.
    pub fn bool(&self) -> Option<bool> {
        match self.value {
            Value::Bool(bool) => Some(bool),
            _ => None,
        }
    }

    /// A whole number.
    pub fn number(&self) -> Option<i64> {
        match self.value {
            Value::Number(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(number as i64),
            _ => None,
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
    line: u32,
}

impl Reader<'_> {
    fn error(&self, message: &'static str) -> JsonError {
        JsonError {
            line: self.line,
            message,
        }
    }

    fn blanks(&mut self) {
        let trimmed = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let skipped = &self.rest[..self.rest.len() - trimmed.len()];
        self.line += skipped.bytes().filter(|byte| *byte == b'\n').count() as u32;
        self.rest = trimmed;
    }

    fn take(&mut self, word: &str) -> bool {
        let rest = self.rest.strip_prefix(word);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn value(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.blanks();
        let line = self.line;
        if depth > DEPTH_MAX {
            return Err(self.error("more levels than 64"));
        }
        let value = match self.rest.bytes().next() {
            Some(b'"') => Value::Text(self.text()?),
            Some(b'[') => Value::List(self.items('[', ']', |reader| reader.value(depth + 1))?),
            Some(b'{') => Value::Object(self.items('{', '}', |reader| reader.member(depth + 1))?),
            Some(b'-' | b'0'..=b'9') => Value::Number(self.number()?),
            _ if self.take("true") => Value::Bool(true),
            _ if self.take("false") => Value::Bool(false),
            _ if self.take("null") => Value::Null,
            _ => return Err(self.error("expected a value")),
        };
        Ok(Json { line, value })
    }

    fn member(&mut self, depth: usize) -> Result<(String, Json), JsonError> {
        self.blanks();
        if !self.rest.starts_with('"') {
            return Err(self.error("expected a name"));
        }
        let name = self.text()?;
        self.blanks();
        if !self.take(":") {
            return Err(self.error("expected a colon"));
        }
        Ok((name, self.value(depth)?))
    }

    fn items<T>(
        &mut self,
        open: char,
        close: char,
        item: impl Fn(&mut Self) -> Result<T, JsonError>,
    ) -> Result<Vec<T>, JsonError> {
        let (mut open_text, mut close_text) = ([0; 1], [0; 1]);
        let (open, close) = (&*open.encode_utf8(&mut open_text), &*close.encode_utf8(&mut close_text));
        self.take(open);
        self.blanks();
        let mut items = Vec::new();
        if self.take(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            self.blanks();
            if self.take(close) {
                return Ok(items);
            }
            if !self.take(",") {
                return Err(self.error("expected a comma"));
            }
        }
    }

    fn number(&mut self) -> Result<f64, JsonError> {
        let is_part = |c: char| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        let digits = text.trim_start_matches('-');
        // Rust reads more than JSON has: "1." and ".5" and "01".
        let has_extra_zero = digits.starts_with('0') && digits.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        let is_more = has_extra_zero
            || digits.starts_with(['.', '+', 'e', 'E'])
            || text.ends_with('.')
            || text.contains(".e")
            || text.contains(".E")
            || text.len() - digits.len() > 1;
        let number = text.parse::<f64>().ok();
        let number = number.filter(|number| !is_more && number.is_finite());
        let number = number.ok_or_else(|| self.error("this is no number"))?;
        self.rest = rest;
        Ok(number)
    }

    fn text(&mut self) -> Result<String, JsonError> {
        self.take("\"");
        let mut text = String::new();
        loop {
            let mut chars = self.rest.chars();
            match chars.next() {
                None => return Err(self.error("a text without an end")),
                Some('"') => {
                    self.rest = chars.as_str();
                    return Ok(text);
                }
                Some('\\') => {
                    self.rest = chars.as_str();
                    text.push(self.escaped()?);
                }
                Some(c) if c < ' ' => return Err(self.error("a control character in a text")),
                Some(c) => {
                    self.rest = chars.as_str();
                    text.push(c);
                }
            }
        }
    }

    fn escaped(&mut self) -> Result<char, JsonError> {
        let mut chars = self.rest.chars();
        let c = chars.next();
        self.rest = chars.as_str();
        Ok(match c {
            Some(c @ ('"' | '\\' | '/')) => c,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let first = self.hexadecimal()?;
                let code = if (0xD800..0xDC00).contains(&first) && self.take("\\u") {
                    let second = self.hexadecimal()?;
                    let low = second.checked_sub(0xDC00).filter(|low| *low < 0x400);
                    low.map(|low| 0x1_0000 + ((first - 0xD800) << 10) + low)
                } else {
                    Some(first)
                };
                let c = code.and_then(char::from_u32);
                c.ok_or_else(|| self.error("half a character"))?
            }
            _ => return Err(self.error("there is no such escape")),
        })
    }

    fn hexadecimal(&mut self) -> Result<u32, JsonError> {
        let digits = self
            .rest
            .get(..4)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let code = code.ok_or_else(|| self.error("expected four hexadecimal digits"))?;
        self.rest = &self.rest[4..];
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_lines() {
        let json =
            Json::parse("\u{feff}{\n \"Name\": \"a\\u00e9\\ud83d\\ude00\\n\",\r\n\"list\":[1,\n-2.5e1, true, null]}\n")
                .unwrap();
        assert_eq!(json.get("name").and_then(Json::text), Some("aé😀\n"));
        let list = json.get("list").unwrap().list();
        assert_eq!((list[0].line, list[1].line, list[0].number()), (3, 4, Some(1)));
        assert_eq!(list[1].value, Value::Number(-25.0));
        for (text, line) in [
            ("{\n\"a\":\n}", 3),
            ("[1,]", 1),
            ("01", 1),
            ("1.", 1),
            ("\"\\ud800\"", 1),
            ("[] x", 1),
            ("\"\n\"", 1),
        ] {
            assert_eq!(Json::parse(text).map_err(|error| error.line), Err(line), "{text}");
        }
        assert!(Json::parse(&"[".repeat(100_000)).is_err());
    }
}
