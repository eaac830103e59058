// Shows the form of the action in the fragment, which browsers send to no server.
function showForm() {
  const values = new URLSearchParams(location.hash.slice(1));
  for (const form of document.forms) {
    form.hidden = form.id !== values.get("action");
    form.token.value = values.get("token");
  }
}
addEventListener("hashchange", showForm);
showForm();
