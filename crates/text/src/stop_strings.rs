//! Ends a stream of text at the first stop string, however the text is cut into chunks.

/// Watches a stream of text for stop strings.
///
/// The stop that *ends* first wins; of several ending at the same place the longest wins. So the
/// text before the stop, and the stop found, do not depend on the chunks. Text that may still turn
/// out to be the beginning of a stop is held back until the next chunk decides.
///
/// ```
/// use bantam_text::StopStrings;
///
/// let mut stops = StopStrings::new(vec!["\nUser:".to_owned()]);
/// assert_eq!(stops.push("Hello!\nUs").text, "Hello!");
/// let outcome = stops.push("er: next");
/// assert_eq!(outcome.text, "");
/// assert_eq!(outcome.stop.as_deref(), Some("\nUser:"));
/// ```
#[derive(Debug, Clone)]
pub struct StopStrings {
    stops: Vec<String>,
    /// Text not yet emitted: a proper beginning of at least one stop.
    held: String,
    stopped: bool,
}

/// What one chunk of text led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopOutcome {
    /// Text that is safe to show now; it never contains any part of the stop string.
    pub text: String,
    /// The stop string that was reached with this chunk; the stream is then over.
    pub stop: Option<String>,
}

impl StopStrings {
    /// Watches for `stops`. Empty strings match nothing and are left out.
    pub fn new(stops: Vec<String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, held: String::new(), stopped: false }
    }

    /// Takes the next chunk. After a stop every further chunk is dropped.
    pub fn push(&mut self, text: &str) -> StopOutcome {
        if self.stopped {
            return StopOutcome::default();
        }
        self.held.push_str(text);
        if let Some((stop, start)) = self.first_stop() {
            self.stopped = true;
            self.held.truncate(start);
            return StopOutcome { text: std::mem::take(&mut self.held), stop: Some(stop) };
        }
        let undecided = self.held.split_off(self.decided_len());
        StopOutcome { text: std::mem::replace(&mut self.held, undecided), stop: None }
    }

    /// Ends the stream: returns the text held back, which no stop string claimed.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The stop that ends first in the held text (the longest of those) and where it starts.
    fn first_stop(&self) -> Option<(String, usize)> {
        self.stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|start| (start, stop)))
            .min_by_key(|(start, stop)| (start + stop.len(), *start))
            .map(|(start, stop)| (stop.clone(), start))
    }

    /// Bytes of held text that cannot be part of a stop any more.
    fn decided_len(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let earliest = self.held.len().saturating_sub(longest.saturating_sub(1));
        (earliest..self.held.len())
            .filter(|&start| self.held.is_char_boundary(start))
            .find(|&start| self.stops.iter().any(|stop| stop.starts_with(&self.held[start..])))
            .unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `chunks` and returns everything emitted and the stop found.
    fn run<'a>(
        stops: &[String],
        chunks: impl IntoIterator<Item = &'a str>,
    ) -> (String, Option<String>) {
        let mut watcher = StopStrings::new(stops.to_vec());
        let (mut text, mut stop) = (String::new(), None);
        for chunk in chunks {
            let outcome = watcher.push(chunk);
            text.push_str(&outcome.text);
            stop = stop.or(outcome.stop);
        }
        text.push_str(&watcher.finish());
        (text, stop)
    }

    #[test]
    fn holds_back_only_what_may_become_a_stop() {
        let mut stops = StopStrings::new(vec!["</s>".to_owned()]);
        assert_eq!(stops.push("a < b </").text, "a < b ");
        assert_eq!(stops.push("p>").text, "</p>");
        assert_eq!(stops.push("<").text, "");
        assert_eq!(stops.finish(), "<");
    }

    #[test]
    fn the_longest_of_stops_that_end_together_wins() {
        let stops = ["b".to_owned(), "ab".to_owned()];
        assert_eq!(run(&stops, ["xab"]), ("x".to_owned(), Some("ab".to_owned())));
        assert_eq!(run(&stops, ["xa", "b"]), ("x".to_owned(), Some("ab".to_owned())));
    }

    #[test]
    fn nothing_follows_a_stop() {
        let mut stops = StopStrings::new(vec!["END".to_owned()]);
        assert_eq!(stops.push("a END b").text, "a ");
        assert_eq!(stops.push("more"), StopOutcome::default());
        assert_eq!(stops.finish(), "");
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(
            // A small alphabet makes overlaps and near misses common; `é` has two bytes.
            text in "[abé]{0,24}",
            stops in prop::collection::vec("[abé]{0,4}", 0..4),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let boundaries: Vec<usize> =
                (0..=text.len()).filter(|&at| text.is_char_boundary(at)).collect();
            let mut cuts: Vec<usize> =
                cuts.iter().map(|cut| boundaries[cut.index(boundaries.len())]).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]);
            let whole = run(&stops, [text.as_str()]);
            prop_assert_eq!(run(&stops, chunks), whole.clone());

            // Against the definition: the shortest prefix that ends with a stop.
            let hit = boundaries.iter().find_map(|&end| {
                stops
                    .iter()
                    .filter(|stop| !stop.is_empty() && text[..end].ends_with(stop.as_str()))
                    .max_by_key(|stop| stop.len())
                    .map(|stop| (text[..end - stop.len()].to_owned(), Some(stop.clone())))
            });
            prop_assert_eq!(hit.unwrap_or((text.clone(), None)), whole);
        }
    }
}
