//! Errors and warnings about a policy file: where, what was expected, what to write instead.

use std::fmt;

use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

/// Most errors that one reading reports; the rest are counted.
pub(crate) const MAX_ERRORS: usize = 50;
/// A place further into its line than this many bytes is named, but its line is not shown.
const MAX_BEFORE: usize = 2000;
/// Most bytes of a line that are kept of the place itself, and of what follows it.
const MAX_EXCERPT: usize = 80;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is accepted, but probably does not say what its author meant.
    Warning,
}

/// The kind of a diagnostic, stable for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Code {
    /// Not YAML, or YAML that the format does not use (tags, several documents).
    Syntax,
    /// Too large, too deep, or expanding to too much.
    TooLarge,
    /// `version` is missing or is one that this build does not read.
    Version,
    /// A key that the format does not know.
    UnknownKey,
    /// The same key twice in one mapping.
    DuplicateKey,
    /// A required key is missing.
    MissingKey,
    /// A list where a mapping belongs, text where a number belongs, and so on.
    WrongType,
    /// Of the right type, but not one of the possible values.
    BadValue,
    /// Not a name, an address or a network.
    BadName,
    /// Not an address or network, or one that cannot stand here.
    BadAddress,
    /// Two endpoints of a tenant with the same address.
    DuplicateAddress,
    /// A rule names an endpoint that the tenant does not have.
    UnknownEndpoint,
    /// A host that the policy does not have.
    UnknownHost,
    /// Two tenants with the same partition.
    DuplicatePartition,
    /// A quota of zero, beyond all bounds, or above the tenant's.
    BadQuota,
    /// An endpoint is given more than its tenant has.
    ExceedsTenant,
    /// A tenant without endpoints.
    EmptyTenant,
    /// A rule that an earlier rule always decides first.
    ShadowedRule,
    /// A rule or selector that matches no endpoint.
    NoEffect,
}

/// A stretch of the source as character offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A place in the file with the line it is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Column after the last marked character on that line.
    pub end_column: usize,
    /// What to know about the place; empty if the message says it all.
    pub label: String,
    /// The line, from its beginning so that columns agree; empty if it is too long to show.
    #[serde(skip)]
    excerpt: String,
    /// The marked bytes of `excerpt`.
    #[serde(skip)]
    marked: (usize, usize),
}

/// One error or warning.
///
/// `Display` renders it with the offending line; serde gives the machine-readable form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The kind, stable for programs.
    pub code: Code,
    /// What is wrong, in one sentence.
    pub message: String,
    /// The file's name as it was given.
    pub file: String,
    /// Where, and what was expected there.
    #[serde(flatten)]
    pub place: Place,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Another place that explains the message, such as the first of two duplicates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related: Option<Place>,
}

impl Diagnostic {
    /// Renders for a person; with `color`, for a terminal that understands ANSI escapes.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut main = level
            .primary_title(&*self.message)
            .element(self.place.element(&self.file, AnnotationKind::Primary));
        if let Some(related) = &self.related {
            main = main.element(related.element(&self.file, AnnotationKind::Context));
        }
        let mut report = vec![main];
        if let Some(help) = &self.help {
            report.push(Group::with_title(Level::HELP.secondary_title(&**help)));
        }
        renderer.render(&report)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl Place {
    fn element<'a>(&'a self, file: &'a str, kind: AnnotationKind) -> Element<'a> {
        if self.excerpt.is_empty() && self.column > 1 {
            return Origin::path(file)
                .line(self.line)
                .char_column(self.column)
                .into();
        }
        let label = (!self.label.is_empty()).then_some(&*self.label);
        Snippet::source(&*self.excerpt)
            .path(file)
            .line_start(self.line)
            .annotation(kind.span(self.marked.0..self.marked.1).label(label))
            .into()
    }

    fn locate(text: &str, span: Span, label: String) -> Self {
        let start = byte_offset(text, span.start);
        // A span of several lines is shown by its first.
        let line_start = text
            .get(..start)
            .and_then(|t| t.rfind('\n'))
            .map_or(0, |at| at + 1);
        let rest = text.get(start..).unwrap_or_default();
        let line_end = start + rest.find('\n').unwrap_or(rest.len());
        let end = rest
            .char_indices()
            .nth(span.end.saturating_sub(span.start))
            .map_or(text.len(), |(at, _)| start + at)
            .clamp(start, line_end);
        let before = text.get(line_start..start).unwrap_or_default();
        let marked = text.get(start..end).unwrap_or_default().trim_end();
        let after = text.get(start + marked.len()..line_end).unwrap_or_default();
        let line = 1 + text.get(..start).unwrap_or_default().matches('\n').count();
        let column = 1 + before.chars().count();
        let end_column = column + marked.chars().count();

        // Control characters could make the terminal lie about the line.
        let clean = |part: &str| part.replace(|c: char| c.is_control() && c != '\t', "\u{fffd}");
        let mut excerpt = String::new();
        let mut bounds = (0, 0);
        if before.len() <= MAX_BEFORE {
            excerpt.push_str(&clean(before));
            bounds.0 = excerpt.len();
            excerpt.push_str(&clean(first_bytes(marked, MAX_EXCERPT)));
            bounds.1 = excerpt.len();
            excerpt.push_str(&clean(first_bytes(after.trim_end(), MAX_EXCERPT)));
        }
        Self {
            line,
            column,
            end_column,
            label,
            excerpt,
            marked: bounds,
        }
    }
}

fn byte_offset(text: &str, chars: usize) -> usize {
    text.char_indices()
        .nth(chars)
        .map_or(text.len(), |(at, _)| at)
}

fn first_bytes(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary_compat(most))
        .unwrap_or_default()
}

/// `str::floor_char_boundary` is younger than the oldest compiler we support.
trait FloorCharBoundary {
    fn floor_char_boundary_compat(&self, at: usize) -> usize;
}

impl FloorCharBoundary for str {
    fn floor_char_boundary_compat(&self, at: usize) -> usize {
        let mut at = at.min(self.len());
        while !self.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

/// Why a policy file is refused: one or more errors, and the warnings found on the way.
///
/// `Display` renders all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct PolicyErrors {
    /// The errors, in the order of the file; never empty.
    errors: Vec<Diagnostic>,
    /// Errors beyond the first few, which are only counted.
    omitted: usize,
    /// Warnings that were found before reading stopped.
    warnings: Vec<Diagnostic>,
}

impl PolicyErrors {
    /// The errors, in the order of the file; never empty.
    pub fn errors(&self) -> &[Diagnostic] {
        &self.errors
    }

    /// The warnings that were found on the way.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// Renders everything for a person; with `color`, for a terminal.
    pub fn render(&self, color: bool) -> String {
        let mut out = String::new();
        for diagnostic in self.errors.iter().chain(&self.warnings) {
            out.push_str(&diagnostic.render(color));
            out.push_str("\n\n");
        }
        let count = self.errors.len() + self.omitted;
        let file = self.errors.first().map_or("", |d| &*d.file);
        let plural = if count == 1 { "" } else { "s" };
        out.push_str(&format!(
            "{file}: {count} error{plural}, the policy is refused"
        ));
        if self.omitted > 0 {
            out.push_str(&format!(" (the first {} are shown)", self.errors.len()));
        }
        out
    }
}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// Collects diagnostics while a file is read.
pub(crate) struct Sink<'t> {
    file: &'t str,
    text: &'t str,
    found: Vec<(Span, Diagnostic)>,
    errors: usize,
    warnings: usize,
}

impl<'t> Sink<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Self {
        Self {
            file,
            text,
            found: Vec::new(),
            errors: 0,
            warnings: 0,
        }
    }

    /// Reports an error at `span`; the returned draft takes label, help and a related place.
    pub(crate) fn error(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<String>,
    ) -> Draft<'_, 't> {
        self.report(Severity::Error, code, span, message.into())
    }

    /// Reports a warning at `span`.
    pub(crate) fn warning(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<String>,
    ) -> Draft<'_, 't> {
        self.report(Severity::Warning, code, span, message.into())
    }

    fn report(
        &mut self,
        severity: Severity,
        code: Code,
        span: Span,
        message: String,
    ) -> Draft<'_, 't> {
        // What an alias repeats is reported once.
        let repeated = self
            .found
            .iter()
            .any(|(at, d)| *at == span && d.message == message);
        let count = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        let keep = !repeated && *count < MAX_ERRORS;
        *count += usize::from(!repeated);
        if keep {
            let place = Place::locate(self.text, span, String::new());
            let file = self.file.to_owned();
            let diagnostic = Diagnostic {
                severity,
                code,
                message,
                file,
                place,
                help: None,
                related: None,
            };
            self.found.push((span, diagnostic));
        }
        Draft {
            text: self.text,
            diagnostic: if keep {
                self.found.last_mut().map(|(_, d)| d)
            } else {
                None
            },
        }
    }

    /// Whether the file is refused already.
    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// The warnings of an accepted file, or the errors of a refused one.
    pub(crate) fn finish(mut self) -> Result<Vec<Diagnostic>, PolicyErrors> {
        self.found.sort_by_key(|(span, _)| span.start);
        let (errors, warnings): (Vec<_>, Vec<_>) = self
            .found
            .into_iter()
            .map(|(_, diagnostic)| diagnostic)
            .partition(|d| d.severity == Severity::Error);
        if errors.is_empty() {
            Ok(warnings)
        } else {
            let omitted = self.errors - errors.len();
            Err(PolicyErrors {
                errors,
                omitted,
                warnings,
            })
        }
    }
}

/// A diagnostic that was just reported, to be completed.
pub(crate) struct Draft<'a, 't> {
    text: &'t str,
    diagnostic: Option<&'a mut Diagnostic>,
}

impl Draft<'_, '_> {
    /// What was expected at the place.
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        if let Some(d) = &mut self.diagnostic {
            d.place.label = label.into();
        }
        self
    }

    /// What to write instead.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        if let Some(d) = &mut self.diagnostic {
            d.help = Some(help.into());
        }
        self
    }

    /// Adds "did you mean" if one of `candidates` is close to `word`.
    pub(crate) fn suggest<'c>(
        self,
        word: &str,
        candidates: impl IntoIterator<Item = &'c str>,
    ) -> Self {
        match closest(word, candidates) {
            Some(meant) => self.help(format!("did you mean `{meant}`?")),
            None => self,
        }
    }

    /// Points at the other place that explains the message.
    pub(crate) fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        if let Some(d) = &mut self.diagnostic {
            d.related = Some(Place::locate(self.text, span, label.into()));
        }
        self
    }
}

/// The candidate that a misspelt `word` most probably stands for.
pub(crate) fn closest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    // Comparing is quadratic in the length, and a long word is no slip of the finger.
    if word.len() > 64 {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace(['-', '_', ' '], "");
    let wanted = plain(word);
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&wanted, &plain(candidate)),
                candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.len().min(word.len()) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
