//! Text to words: white space separates them, quotes hold them together, `#` at the start of one begins a comment.

use std::sync::Arc;

use super::Token;

/// All words of a file. A quote that is not closed goes to the end of the file.
pub(super) fn tokens(file: &Arc<str>, text: &str) -> Vec<Token> {
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
        if first == '"' {
            let mut escaped = false;
            for next in chars.by_ref() {
                line += u32::from(next == '\n');
                match next {
                    '"' if escaped => {
                        word.pop();
                        word.push('"');
                        escaped = false;
                    }
                    '"' => break,
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
        tokens.push(Token { text: word, file: Arc::clone(file), line: start });
    }
    tokens
}
