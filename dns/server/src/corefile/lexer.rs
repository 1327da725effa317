//! Text to words: white space separates them, quotes hold them together, `#` at the start of one begins a comment.

use std::sync::Arc;

use super::{CorefileError, Token};

/// All words of a file.
pub(super) fn tokens(file: &Arc<str>, text: &str) -> Result<Vec<Token>, CorefileError> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut chars = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(first) = chars.next() {
        if first.is_whitespace() {
            line += u32::from(first == '\n');
            continue;
        }
        if first == '#' {
            while chars.next_if(|next| *next != '\n').is_some() {}
            continue;
        }
        let start = line;
        let mut word = String::new();
        let mut is_open = first == '"';
        if is_open {
            let mut escaped = false;
            for next in chars.by_ref() {
                line += u32::from(next == '\n');
                match next {
                    '"' if escaped => {
                        word.pop();
                        word.push('"');
                        escaped = false;
                    }
                    '"' => {
                        is_open = false;
                        break;
                    }
                    _ => {
                        escaped = next == '\\' && !escaped;
                        word.push(next);
                    }
                }
            }
        } else {
            word.push(first);
            while let Some(next) = chars.next_if(|next| !next.is_whitespace()) {
                word.push(next);
            }
        }
        let token = Token { text: word, file: Arc::clone(file), line: start };
        if is_open {
            return Err(CorefileError::new(&token, "", "the quote that begins here has no end"));
        }
        tokens.push(token);
    }
    Ok(tokens)
}
