//! Merges of a SentencePiece vocabulary, which states scores instead.

use std::collections::HashSet;

/// A pair of pieces that may be joined.
#[derive(Debug, Clone, Copy)]
struct Merge<'t> {
    left: &'t str,
    right: &'t str,
    score: f32,
}

/// The merges that a byte-pair model needs to work as SentencePiece does: every pair of tokens
/// whose concatenation is a token, the pair with the best score of its concatenation first.
///
/// `tokens` are the ordinary pieces with their scores, in the order of their ids. Pairs that score
/// the same come in the order of `transformers` (`convert_slow_tokenizer.generate_merges`): longer
/// left part, longer right part, then the concatenation with the smaller id.
pub(crate) fn merges_from_scores(tokens: &[(&str, f32)]) -> Vec<(String, String)> {
    let known: HashSet<&str> = tokens.iter().map(|(token, _)| *token).collect();
    let mut merges: Vec<Merge<'_>> = Vec::with_capacity(2 * tokens.len());
    for &(token, score) in tokens {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if known.contains(left) && known.contains(right) {
                merges.push(Merge { left, right, score });
            }
        }
    }
    let length = |text: &str| text.chars().count();
    merges.sort_by(|a, b| {
        (b.score.total_cmp(&a.score))
            .then_with(|| length(b.left).cmp(&length(a.left)))
            .then_with(|| length(b.right).cmp(&length(a.right)))
    });
    merges.iter().map(|merge| (merge.left.to_owned(), merge.right.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_score_merges_first() {
        let tokens =
            [("a", -9.0), ("b", -9.0), ("c", -9.0), ("ab", -2.0), ("bc", -1.0), ("abc", -3.0)];
        let pair = |left: &str, right: &str| (left.to_owned(), right.to_owned());
        assert_eq!(
            merges_from_scores(&tokens),
            [pair("b", "c"), pair("a", "b"), pair("ab", "c"), pair("a", "bc")]
        );
    }
}
