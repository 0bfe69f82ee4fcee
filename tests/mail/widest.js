// Says what makes the page scroll sideways, or gives null where nothing does.
() => {
  const root = document.documentElement;
  if (root.scrollWidth <= root.clientWidth) return null;
  const right = (node) => {
    const range = document.createRange();
    range.selectNode(node);
    return range.getBoundingClientRect().right;
  };
  const furthest = (nodes) => nodes.reduce((a, b) => (right(b) > right(a) ? b : a));
  const path = (el) => {
    const names = [];
    for (; el && names.length < 4; el = el.parentElement)
      names.unshift([el.localName + (el.id && "#" + el.id), ...el.classList].join("."));
    return names.join(" > ");
  };
  const nodes = [];
  const shown = NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT;
  const walker = document.createTreeWalker(document.body, shown);
  while (walker.nextNode()) nodes.push(walker.currentNode);
  const box = furthest(nodes.filter((node) => node.localName));
  const wide = `${root.scrollWidth - root.clientWidth} px too wide: ${path(box)}`;
  // A table grows with its widest cell, so the text or image that sticks out furthest is named too.
  const leaf = furthest(nodes.filter((node) => !node.hasChildNodes()));
  if (right(leaf) <= root.clientWidth) return wide;
  if (leaf.localName) return `${wide}; furthest inside: ${path(leaf)}`;
  return `${wide}; furthest inside: ${path(leaf.parentElement)} "${leaf.data.trim().slice(0, 60)}"`;
}
