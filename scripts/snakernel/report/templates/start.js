(async () => {
  const frame = window.frameElement;
  const packed = Uint8Array.from(atob(frame.dataset.page), (character) => character.charCodeAt(0));
  const text = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  document.open();
  document.write(text);
  document.close();
  const fit = () => { frame.style.height = document.documentElement.offsetHeight + 40 + "px"; };
  new ResizeObserver(fit).observe(document.documentElement);
  fit();
})();
