//! The property tests that every back end must pass.
//!
//! [`check`] draws shapes, ragged batches and block tables at random, runs each operation on the
//! device and on [`Reference`], and compares: exactly where the contract is exact, else within the
//! rounding that the contract allows. It then checks batch invariance bit for bit.
//!
//! ```no_run
//! use bantam_backend::{conformance, reference::Reference};
//! conformance::check(&Reference);
//! ```

mod attention;
mod input;
mod linear;
mod rowwise;

use crate::{Backend, LinearInput, Store};
use bantam_numerics::{ActivationFormat, QuantScheme, quantize};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

type Check = Result<(), TestCaseError>;

/// Random cases of each property.
const CASES: u32 = 48;
/// Random cases of each property of each linear scheme.
const SCHEME_CASES: u32 = 6;

/// Holds a back end against the reference arithmetic.
///
/// # Panics
/// With the smallest failing case, if the back end breaks a contract.
pub fn check<B: Backend>(backend: &B) {
    for scheme in linear::schemes() {
        property_of(SCHEME_CASES, backend, linear::case(scheme), linear::check);
        property_of(SCHEME_CASES, backend, linear::case(scheme), linear::check_invariance);
    }
    property(backend, input::round_case(), input::check_round);
    property(backend, rowwise::case(), rowwise::check_embed);
    property(backend, rowwise::case(), rowwise::check_norm);
    property(backend, rowwise::case(), rowwise::check_feed_forward);
    property(backend, attention::case(), attention::check);
    property(backend, attention::case(), attention::check_invariance);
    attention::check(backend, attention::wide_case()).expect("a wide model's attention");
    check_refusals(backend);
}

fn property<B: Backend, S: Strategy>(backend: &B, cases: S, check: fn(&B, S::Value) -> Check) {
    property_of(CASES, backend, cases, check);
}

fn property_of<B: Backend, S: Strategy>(
    count: u32,
    backend: &B,
    cases: S,
    check: fn(&B, S::Value) -> Check,
) {
    let config = Config { cases: count, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&cases, |case| check(backend, case));
    if let Err(error) = result {
        panic!("{}: {error}", backend.describe());
    }
}

/// Numbers in −1..1 that depend on a seed only.
fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Fails unless each pair differs by at most `tolerance(index)`.
fn compare(what: &str, got: &[f32], want: &[f32], tolerance: impl Fn(usize) -> f32) -> Check {
    prop_assert_eq!(got.len(), want.len(), "{}: length", what);
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let allowed = tolerance(i);
        prop_assert!(
            (got - want).abs() <= allowed,
            "{what}[{i}] = {got}, reference {want}, allowed difference {allowed}"
        );
    }
    Ok(())
}

/// An operand that holds given rows.
fn operand<B: Backend>(
    backend: &B,
    x: &[f32],
    columns: usize,
    format: ActivationFormat,
) -> B::Operand {
    let tensor = tensor(backend, x, columns);
    let mut operand = backend.operand(x.len() / columns, columns, format);
    backend.round(&tensor, &LinearInput::new(format), &mut operand).expect("same shape");
    operand
}

/// A tensor that holds given rows.
fn tensor<B: Backend>(backend: &B, x: &[f32], columns: usize) -> B::Tensor {
    let mut tensor = backend.tensor(x.len() / columns, columns);
    backend.write(x, &mut tensor).expect("rows fit");
    tensor
}

/// Wrong shapes are errors, never panics or writes out of bounds.
fn check_refusals<B: Backend>(backend: &B) {
    let x = tensor(backend, &[0.5; 32], 16);
    let mut small = backend.tensor(1, 16);
    assert!(backend.write(&[0.0; 32], &mut small).is_err(), "more rows than capacity");
    assert!(backend.write(&[0.0; 17], &mut small).is_err(), "not whole rows");
    assert!(backend.select_rows(&x, &[2], &mut small).is_err(), "row out of range");
    let table = quantize(&[0.5; 64], 4, 16, QuantScheme::F32).expect("finite");
    let table = backend.weight(table).expect("f32 is always supported");
    assert!(backend.embed(&table, &[4], &mut small).is_err(), "token out of range");
    check_input_refusals(backend);
    let input = operand(backend, &[0.5; 30], 15, ActivationFormat::F32);
    let mut out = backend.tensor(2, 4);
    let linear = backend.linear(&input, &table, None, Store::Replace, &mut out);
    assert!(linear.is_err(), "K differs");
    let input = operand(backend, &[0.5; 32], 16, ActivationFormat::F32);
    let linear = backend.linear(&input, &table, None, Store::Replace, &mut small);
    assert!(linear.is_err(), "N differs");
    let input = operand(backend, &[0.5; 32], 16, ActivationFormat::BF16);
    let linear = backend.linear(&input, &table, None, Store::Replace, &mut out);
    assert!(linear.is_err(), "the operand has another format");
    attention::check_refusals(backend);
    check_scheme_refusals(backend);
}

/// What a layer asks of its input must fit the rows.
fn check_input_refusals<B: Backend>(backend: &B) {
    let x = tensor(backend, &[0.5; 32], 16);
    let plain = || LinearInput::<B::Vector>::new(ActivationFormat::Int8);
    let refused = |what: &str, columns: usize, input: &LinearInput<B::Vector>| {
        let mut out = backend.operand(2, columns, ActivationFormat::Int8);
        assert!(backend.round(&x, input, &mut out).is_err(), "{what} was accepted");
    };
    refused("another number of columns", 15, &plain());
    refused("rows wider than the operand", 16, &LinearInput::new(ActivationFormat::BF16));
    let channel_factors = Some(backend.vector(&[1.0; 15]));
    refused("a factor too few", 16, &LinearInput { channel_factors, ..plain() });
    refused("an order too short", 16, &LinearInput { order: Some(vec![0; 15]), ..plain() });
    refused("an order past the row", 16, &LinearInput { order: Some(vec![16; 16]), ..plain() });
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        refused("a bad scale", 16, &LinearInput { scale: Some(scale), ..plain() });
    }
}

/// Pairs of formats that cannot meet are refused when the weight is packed, with a way out.
fn check_scheme_refusals<B: Backend>(backend: &B) {
    use ActivationFormat::{BF16, F32, Int8};
    let pairs = [
        (QuantScheme::F32, BF16),
        (QuantScheme::BF16, F32),
        (QuantScheme::INT8, F32),
        (QuantScheme::FP8, Int8),
    ];
    for (scheme, activation) in pairs {
        let packed = quantize(&[0.5; 64], 4, 16, scheme.with(activation)).expect("finite");
        let error = backend.weight(packed).err().expect("an unsupported pair").to_string();
        assert!(error.contains("; use "), "{error}");
    }
    // Groups that no panel format could cut: either run right or refused.
    for activation in [BF16, Int8] {
        let scheme = QuantScheme::int4(6, false).with(activation);
        let odd = quantize(&[0.5; 12], 2, 6, scheme).expect("finite");
        if let Ok(weight) = backend.weight(odd) {
            let input = operand(backend, &[0.5; 6], 6, activation);
            let mut out = backend.tensor(1, 2);
            backend.linear(&input, &weight, None, Store::Replace, &mut out).expect("shapes agree");
        }
    }
}
