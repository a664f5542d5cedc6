// What is wider than its place can be scrolled with keys, and the buttons beside code are no landmarks of the page.
addEventListener("load", () => {
  const watch = new ResizeObserver(all => all.forEach(({ target }) => {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }));
  document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code").forEach(each => watch.observe(each));
  const plain = () => document.querySelectorAll(".md-code__nav").forEach(each => { each.role = "presentation"; });
  new MutationObserver(plain).observe(document.body, { childList: true, subtree: true });
  plain();
});
