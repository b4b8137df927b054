//! Compiler errors for typical mistakes. Without features: the errors are the same, and the build is much smaller.

#[test]
fn misuse_fails_to_compile_with_clear_errors() {
    let cases = trybuild::TestCases::new();
    // A passing case makes trybuild build instead of only checking: route keys are checked during code generation.
    cases.pass("tests/compile_fail/fits.rs");
    cases.compile_fail("tests/compile_fail/*_*.rs");
}
