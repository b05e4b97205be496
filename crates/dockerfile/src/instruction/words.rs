//! Words, with their quotes where those still matter.

/// What stands between words; other blanks of Unicode are part of one.
fn is_blank(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\r' | '\n' | '\u{b}' | '\u{c}')
}

pub(super) fn split_keyword(text: &str) -> (&str, &str) {
    text.split_once(is_blank).unwrap_or((text, ""))
}

pub(super) fn words(rest: &str) -> Vec<String> {
    rest.split(is_blank).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The first word with its quotes, as it stands.
pub(crate) fn first_word(rest: &str, escape: char) -> &str {
    let mut quote = None;
    let mut chars = rest.char_indices();
    while let Some((at, char)) = chars.next() {
        match quote {
            Some(open) if char == open => quote = None,
            Some('\'') => {}
            _ if char == escape => {
                chars.next();
            }
            None if char.is_whitespace() => return &rest[..at],
            None if char == '\'' || char == '"' => quote = Some(char),
            _ => {}
        }
    }
    rest
}

/// Words with their quotes; blanks inside quotes or behind the escape character do not end one.
pub(super) fn quoted_words(rest: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = rest.chars();
    while let Some(char) = chars.next() {
        match quote {
            Some(open) => {
                word.push(char);
                if char == escape && open == '"' {
                    word.extend(chars.next());
                } else if char == open {
                    quote = None;
                }
            }
            None if char.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            None => {
                word.push(char);
                if char == '\'' || char == '"' {
                    quote = Some(char);
                } else if char == escape {
                    word.extend(chars.next());
                }
            }
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}
