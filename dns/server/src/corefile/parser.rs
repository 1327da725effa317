//! Words to server blocks: snippets and imports are put in place, variables are replaced, directives are found.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Block, CorefileError, Directive, Token, lexer};

/// Snippets and files that one Corefile may import; more is a loop.
const IMPORTS_MAX: usize = 1000;

/// Where files and variables come from; a test has its own.
pub(crate) struct Surroundings<'a> {
    /// Reads a file.
    pub(crate) read: &'a dyn Fn(&Path) -> std::io::Result<String>,
    /// Reads an environment variable.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
}

struct Parser<'a> {
    /// Words that are not consumed, last one first.
    rest: Vec<Token>,
    /// The last word that was consumed.
    last: Option<Token>,
    snippets: HashMap<String, Vec<Token>>,
    imports: usize,
    surroundings: &'a Surroundings<'a>,
}

/// Reads a Corefile. Files that it imports are relative to the file that names them.
pub(crate) fn parse(
    file: &str,
    text: &str,
    surroundings: &Surroundings<'_>,
) -> Result<Vec<Block>, CorefileError> {
    let mut rest = lexer::tokens(&Arc::from(file), text)?;
    rest.reverse();
    let mut parser = Parser { rest, last: None, snippets: HashMap::new(), imports: 0, surroundings };
    let mut blocks = Vec::new();
    while !parser.rest.is_empty() {
        blocks.extend(parser.block()?);
    }
    Ok(blocks)
}

impl Surroundings<'_> {
    /// The real ones.
    pub(crate) fn real() -> Surroundings<'static> {
        Surroundings {
            read: &|path| std::fs::read_to_string(path),
            variable: &|name| std::env::var(name).ok(),
        }
    }
}

impl Parser<'_> {
    /// A server block; nothing when it was a snippet or the end.
    fn block(&mut self) -> Result<Option<Block>, CorefileError> {
        let keys = self.keys()?;
        let Some(first) = keys.first().cloned() else { return Ok(None) };
        let braces = self.rest.last().is_some_and(|token| token.text == "{");
        let snippet = first.text.strip_prefix('(').and_then(|name| name.strip_suffix(')'));
        if let Some(name) = snippet.filter(|_| keys.len() == 1) {
            self.snippet(name, &first, braces)?;
            return Ok(None);
        }
        if braces {
            self.next();
        }
        let mut block = Block { keys, directives: Vec::new() };
        loop {
            let Some(token) = self.rest.last().cloned() else {
                return if braces {
                    Err(CorefileError::new(&first, "", "the block has no closing }"))
                } else {
                    Ok(Some(block))
                };
            };
            match token.text.as_str() {
                "}" if braces => {
                    self.next();
                    return Ok(Some(block));
                }
                "import" => self.import()?,
                _ => block.directives.push(self.directive()?),
            }
        }
    }

    /// The zones before a block.
    fn keys(&mut self) -> Result<Vec<Token>, CorefileError> {
        let mut keys: Vec<Token> = Vec::new();
        let mut more = false;
        while let Some(token) = self.rest.last() {
            let text = self.expand(&token.text);
            let new_line = self.on_new_line();
            if text == "import" && new_line {
                self.import()?;
                continue;
            }
            if text == "{" {
                let Some(token) = self.rest.last().filter(|_| more || keys.is_empty()) else { break };
                return Err(CorefileError::new(
                    token,
                    "",
                    "expected a zone before {; is there a comma too many?",
                ));
            }
            if !keys.is_empty() && !more && new_line {
                break;
            }
            let mut token = self.next().expect("it was looked at");
            more = text.ends_with(',');
            token.text = text.trim_end_matches(',').to_owned();
            if !token.text.is_empty() {
                keys.push(token);
            }
        }
        Ok(keys)
    }

    fn snippet(&mut self, name: &str, at: &Token, braces: bool) -> Result<(), CorefileError> {
        if self.snippets.contains_key(name) {
            return Err(CorefileError::new(at, "", format!("the snippet {name:?} is defined twice")));
        }
        if !braces {
            return Err(CorefileError::new(at, "", format!("the snippet {name:?} needs a block in braces")));
        }
        self.next();
        let mut depth = 1;
        let mut tokens = Vec::new();
        while let Some(token) = self.next() {
            match token.text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.snippets.insert(name.to_owned(), tokens);
                return Ok(());
            }
            tokens.push(token);
        }
        Err(CorefileError::new(at, "", format!("the snippet {name:?} has no closing }}")))
    }

    fn directive(&mut self) -> Result<Directive, CorefileError> {
        let mut name = self.next().expect("it was looked at");
        name.text = self.expand(&name.text);
        let mut directive = Directive { name, args: Vec::new(), body: Vec::new() };
        if directive.name.text == "}" || directive.name.text == "{" {
            let text = format!("unexpected {}: there is no block for it", directive.name.text);
            return Err(CorefileError::new(&directive.name, "", text));
        }
        // Where the block of the directive began, and the blocks inside that.
        let mut depth = 0;
        while let Some(token) = self.rest.last() {
            let new_line = self.on_new_line();
            match token.text.as_str() {
                "{" => depth += 1,
                _ if new_line && depth == 0 => break,
                "}" if depth > 0 => depth -= 1,
                "}" => {
                    let at = token.clone();
                    return Err(directive.fault(Some(&at), "unexpected } on the line of a directive"));
                }
                "import" if new_line => {
                    self.import()?;
                    continue;
                }
                _ => {}
            }
            let mut token = self.next().expect("it was looked at");
            let brace = matches!(token.text.as_str(), "{" | "}");
            token.text = self.expand(&token.text);
            match directive.body.last_mut() {
                _ if brace && depth <= 1 => {
                    // The outermost braces are the block's own; nothing may follow them.
                    if depth == 0 && token.text == "}" {
                        break;
                    }
                    directive.body.extend((directive.body.is_empty()).then(Vec::new));
                }
                None => directive.args.push(token),
                Some(line) if new_line && !line.is_empty() => directive.body.push(vec![token]),
                Some(line) => line.push(token),
            }
        }
        if depth > 0 {
            return Err(directive.fault(None, "the block has no closing }"));
        }
        directive.body.retain(|line| !line.is_empty());
        Ok(directive)
    }

    /// Puts a snippet's or files' words in the place of `import NAME`.
    fn import(&mut self) -> Result<(), CorefileError> {
        let at = self.next().expect("it was looked at");
        let fault = |message: String| CorefileError::new(&at, "import", message);
        let mut patterns = Vec::new();
        while self.rest.last().is_some() && !self.on_new_line() {
            patterns.extend(self.next().map(|token| self.expand(&token.text)));
        }
        let [pattern] = patterns.as_slice() else {
            return Err(fault("takes one snippet, file or pattern of files".into()));
        };
        self.imports += 1;
        if self.imports > IMPORTS_MAX {
            return Err(fault(format!("more than {IMPORTS_MAX} imports; does {pattern:?} import itself?")));
        }
        if let Some(snippet) = self.snippets.get(pattern) {
            self.rest.extend(snippet.iter().rev().cloned());
            self.last = None;
            return Ok(());
        }
        let mut imported = Vec::new();
        for path in files(&at, pattern).map_err(fault)? {
            let read = (self.surroundings.read)(&path);
            let text = read.map_err(|e| fault(format!("cannot read {}: {e}", path.display())))?;
            imported.extend(lexer::tokens(&Arc::from(path.to_string_lossy()), &text)?);
        }
        self.rest.extend(imported.into_iter().rev());
        self.last = None;
        Ok(())
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.rest.pop()?;
        self.last = Some(token.clone());
        Some(token)
    }

    /// Whether the next word begins a line.
    fn on_new_line(&self) -> bool {
        match (&self.last, self.rest.last()) {
            (Some(last), Some(next)) => {
                let newlines = last.text.matches('\n').count();
                last.file != next.file || last.line + u32::try_from(newlines).unwrap_or(0) < next.line
            }
            _ => true,
        }
    }

    /// Replaces `{$NAME}` and `{%NAME%}`; a variable that is not set is empty.
    fn expand(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (start, end) in [("{%", "%}"), ("{$", "}")] {
            while let Some(at) = text.find(start) {
                let name_at = at + start.len();
                let Some(length) = text[name_at..].find(end).filter(|length| *length > 0) else { break };
                let value = (self.surroundings.variable)(&text[name_at..name_at + length]);
                text.replace_range(at..name_at + length + end.len(), &value.unwrap_or_default());
            }
        }
        text
    }
}

/// The files of a pattern with at most one `*` in its last part. A pattern may match nothing, a file must exist.
fn files(at: &Token, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let path = Path::new(&*at.file).parent().unwrap_or(Path::new("")).join(pattern);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some((head, tail)) = name.split_once('*') else { return Ok(vec![path]) };
    let directory = path.parent().unwrap_or(Path::new("."));
    if tail.contains('*') || directory.to_string_lossy().contains('*') || name.contains(['?', '[']) {
        return Err(format!("{pattern:?}: a pattern may have one * only, in the name of the file"));
    }
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let Ok(entries) = std::fs::read_dir(directory) else {
        tracing::warn!(pattern, "no files match an import of the Corefile");
        return Ok(Vec::new());
    };
    let matches = |entry: &std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let hidden = name.starts_with('.') && !head.starts_with('.');
        !hidden && name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail)
    };
    let mut files: Vec<PathBuf> =
        entries.flatten().filter(|entry| matches(entry)).map(|entry| entry.path()).collect();
    if files.is_empty() {
        tracing::warn!(pattern, "no files match an import of the Corefile");
    }
    files.sort();
    Ok(files)
}
