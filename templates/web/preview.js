// Reload when a template, term or style was saved.
new EventSource("/changes").addEventListener("message", () => location.reload());
