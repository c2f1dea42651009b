"""Playbooks of a few tasks, by the names of our commands, for runs of a real ansible-playbook."""

PLAYS = {
    "up": """
        - name: First
          hosts: localhost
          connection: local
          gather_facts: false
          tasks:
            - name: Something changes
              ansible.builtin.command: "true"
              tags: [change]
            - name: Variables arrive as they were given
              ansible.builtin.copy:
                content: "{{ [word | default(''), number | default(0), list | default([])] | to_json }}"
                dest: "{{ lookup('env', 'DEPLOYCTL_RUN_DIR') }}/vars.json"
                mode: "0600"
              when: word is defined
              no_log: true
    """,
    "down": """
        - name: First
          hosts: localhost
          connection: local
          gather_facts: false
          tasks:
            - name: It breaks
              ansible.builtin.fail:
                msg: broken on purpose
    """,
    "swap": """
        - name: First
          hosts: localhost
          connection: local
          gather_facts: false
          tasks:
            - name: Host is taken
              ansible.builtin.copy:
                content: ""
                dest: "{{ lookup('env', 'DEPLOYCTL_RUN_DIR') }}/taken"
                mode: "0600"
            - name: It breaks
              ansible.builtin.fail:
                msg: broken on purpose
    """,
    "plays/release": """
        - name: First
          hosts: localhost
          connection: local
          gather_facts: false
          tasks:
            - name: Host is released
              ansible.builtin.command: rm {{ lookup('env', 'DEPLOYCTL_RUN_DIR') }}/taken
    """,
    "plan": """
        - name: Never
          hosts: nobody_is_here
          gather_facts: false
          tasks:
            - name: Nothing
              ansible.builtin.debug:
    """,
    "accept": """
        - name: First
          hosts: localhost
          connection: local
          gather_facts: false
          tasks:
            - name: It is rejected
              ansible.builtin.copy:
                content: '{"verdict": "rejected", "checks": []}'
                dest: "{{ lookup('env', 'DEPLOYCTL_RUN_DIR') }}/acceptance.json"
                mode: "0600"
            - name: Site is accepted
              ansible.builtin.fail:
                msg: rejected
    """,
    "wait": """
        - name: First
          hosts: localhost
          connection: local
          gather_facts: false
          tasks:
            - name: It takes long
              ansible.builtin.command: sleep 59.59
    """,
}
